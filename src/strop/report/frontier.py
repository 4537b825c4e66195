"""The frontier: trials that nothing else beats in both cost and quality."""

from __future__ import annotations

from strop.core.evaluation import Goal
from strop.engine.ledger import Trial
from strop.engine.outcome import Outcome
from strop.numerics.pareto import pareto_front


def frontier(outcome: Outcome, goal: Goal) -> tuple[Trial, ...]:
    """Return the trials on the frontier of what is minimized against the drop in quality, cheapest first."""
    judged = [t for t in outcome.trials if _cost(t, goal) is not None and _drop(t) is not None]
    points = [(_cost(t, goal) or 0.0, max(_drop(t) or 0.0, 0.0)) for t in judged]
    best = [judged[index] for index in pareto_front(points)]
    return tuple(sorted(best, key=lambda trial: _cost(trial, goal) or 0.0))


def _cost(trial: Trial, goal: Goal) -> float | None:
    measured = trial.evaluation.objective(goal) if trial.evaluation else None
    if measured is None:
        return None
    return -measured.value if goal.minimize == "throughput" else measured.value


def _drop(trial: Trial) -> float | None:
    fidelity = trial.evaluation.fidelity if trial.evaluation else None
    return fidelity.drop.value if fidelity and fidelity.finite else None
