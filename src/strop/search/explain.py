"""What each change of a recipe brought, and why it did not help, as far as it can be told from what was measured."""

from __future__ import annotations

from collections.abc import Iterable

from strop.core import registry
from strop.core.evaluation import SIZES, Evaluation, Goal, Measurement
from strop.engine.changes import Change, Comparison, comparisons, differ
from strop.engine.ledger import Trial
from strop.engine.machine import Machine

_TINY_MS = 0.15
_SHORT_MS = 1.0
_BFLOAT16 = ("AVX-512 BF16", "AMX BF16", "NEON BF16")
_NOUNS = {
    "latency": "time",
    "throughput": "throughput",
    "size": "size",
    "zipped-size": "size zipped",
    "memory": "peak memory",
    "cold-start": "cold start",
}
_UNKNOWN = "why can't be told from what was measured"


def explain(
    trial: Trial, trials: Iterable[Trial], original: Trial, goal: Goal, machine: Machine
) -> str:
    """Return what each change of a trial's recipe brought in what is minimized, and why where it did not help.

    What is only inferred is said to be probable.

    Args:
        trial: What was tried; measured.
        trials: All of the study, to compare with.
        original: How the source runs today.
        goal: What it was tried for.
        machine: Where.
    """
    said = (_said(c, trial, goal, machine) for c in comparisons(trial, trials, original))
    return " ".join(sentence for sentence in said if sentence)


def _said(compared: Comparison, trial: Trial, goal: Goal, machine: Machine) -> str:
    now, before = (_objective(t.evaluation, goal) for t in (trial, compared.other))
    if now is None or before is None or not before.value:
        return ""
    ratio = now.value / before.value
    figures = f"{ratio:.2f} times the {_NOUNS[goal.minimize]} {compared.to}"
    is_same = not differ(now, before, goal)
    if not is_same and (ratio > 1) == (goal.minimize == "throughput"):
        return f"{compared.what} helped, {figures}."
    verdict = "made it worse"
    if is_same:
        verdict = f"made no {'' if f'{ratio:.2f}' == '1.00' else 'sure '}difference"
    causes = _causes(compared.change, trial, goal, machine, is_same=is_same)
    return f"{compared.what} {verdict}, {figures}: {'; '.join(causes) or _UNKNOWN}."


def _objective(evaluation: Evaluation | None, goal: Goal) -> Measurement | None:
    return evaluation.objective(goal) if evaluation else None


def _causes(
    change: Change | None, trial: Trial, goal: Goal, machine: Machine, *, is_same: bool
) -> list[str]:
    """Return what is known, then what is only inferred, of why a change did not help."""
    if change is None:
        return []
    if goal.minimize in SIZES:
        return ["how a file is run does not change it"] if change.is_of_runtime else []
    time = trial.evaluation and trial.evaluation.measurements.get(f"latency_p50@{goal.batch}")
    if goal.minimize not in ("latency", "throughput") or not time:
        return []
    if change.value is None:
        seen, inferred = _of_technique(change.name, time.value, trial, machine)
    else:
        seen, inferred = _of_setting(change, time.value, machine, is_same=is_same)
    # Nothing that follows from how such things usually go is told as if it had been measured here.
    return [*seen, *(f"probably {reason}" for reason in inferred)]


def _of_technique(
    name: str, milliseconds: float, trial: Trial, machine: Machine
) -> tuple[list[str], list[str]]:
    """Return what is seen, and what can only be inferred, of why a technique did not make calls shorter."""
    seen: list[str] = []
    kind = registry.passes.get(name)
    left = len(trial.facts.get("left_in_float") or ())
    if left:
        layers = "1 layer" if left == 1 else f"{left} layers"
        seen.append(
            f"{layers} stayed in float, with conversions at {'its' if left == 1 else 'their'} borders"
        )
    if kind.computes_in_integers and not machine.has_integer_dot_products:
        seen.append("this processor has no integer dot-product instructions")
    if kind.price:
        return seen, [kind.price]
    if milliseconds < _TINY_MS:
        return seen, ["the work is so small that calling the kernels costs more than running them"]
    if kind.computes_in_integers and not seen:
        return seen, [
            "this engine's integer kernels for these layers are no faster than its float ones"
        ]
    return seen, []


def _of_setting(
    change: Change, milliseconds: float, machine: Machine, *, is_same: bool
) -> tuple[list[str], list[str]]:
    """Return what is seen, and what can only be inferred, of why a setting did not make calls shorter."""
    threads = change.value if change.name == "threads" else 0
    if isinstance(threads, int) and threads > machine.cores:
        return [f"{threads} threads share {machine.cores} cores"], []
    if isinstance(threads, int) and threads > 1 and milliseconds < _SHORT_MS:
        return [], ["so short that handing work to several threads costs more than it saves"]
    if change.value == "bf16" and not set(_BFLOAT16) & set(machine.instructions):
        return ["this processor has no bfloat16 instructions"], []
    if change.name == "micro_batch":
        return [], ["the engine's own threads share this work out as well"]
    if change.name == "jit" and not is_same:
        return [], [
            "XLA's own CPU kernels for these layers are slower than oneDNN's, which it replaces"
        ]
    return [], []
