"""Figures as people read them."""

from __future__ import annotations

import math

from strop.core.evaluation import TOP1_AGREEMENT, Measurement
from strop.engine.ledger import Trial
from strop.engine.outcome import Circumstances, Outcome, figure


def quantity(measured: Measurement | None) -> str:
    """Return a measurement with its unit, three digits that matter; a dash for None.

    Example:
        >>> quantity(Measurement.exact(0.1234, "ms")), quantity(Measurement.exact(2_300_000, "bytes"))
        ('123 µs', '2.3 MB')
    """
    if measured is None:
        return "–"
    return _in_unit(measured.value, measured.unit)


def percent(share: float) -> str:
    """Return a share as a percentage, with as many digits as it has.

    Example:
        >>> percent(0.95), percent(0.999)
        ('95 %', '99.9 %')
    """
    return f"{round(100 * share, 6):g} %"


def _in_unit(value: float, unit: str) -> str:
    if unit == "ms":
        if abs(value) < 1:
            return f"{_digits(value * 1e3)} µs"
        return f"{_digits(value)} ms" if abs(value) < 1e3 else f"{_digits(value / 1e3)} s"
    if unit == "bytes":
        for name, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
            if abs(value) >= size:
                return f"{_digits(value / size)} {name}"
        return f"{value:.0f} bytes"
    if unit == "count":
        return f"{value:,.0f}"
    if unit == "1/s":
        return f"{_digits(value)}/s" if value < 1e4 else f"{value:,.0f}/s"
    return f"{value:.4g} {unit}".rstrip()


def _digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1e3 else f"{value:.0f}"


def interval(measured: Measurement) -> str:
    """Return the two ends of a figure's interval, or that they are not known.

    Example:
        >>> interval(Measurement(0.5, "", 0.25, 0.75)), interval(Measurement(0.5, "", -math.inf, math.inf))
        ('0.25 to 0.75', 'interval not known')
    """
    if math.isinf(measured.low) and math.isinf(measured.high):
        return "interval not known"
    return f"{measured.low:.4g} to {measured.high:.4g}"


def _factor(value: float) -> str:
    return f"{value:.2f}" if value < 2 else f"{value:.1f}" if value < 20 else f"{value:.0f}"


def gain(outcome: Outcome, trial: Trial, circumstances: Circumstances) -> float | None:
    """Return how many times better than the baseline a trial is in what was minimized.

    Paired where it raced; else by the winner that raced, so that all gains stand on one measure.
    """
    pair = outcome.pair_of(trial)
    if pair and pair.rounds:
        return 1 / pair.ratio.value
    raced = outcome.pair_of(outcome.best) if outcome.best else None
    if outcome.best and raced and raced.rounds and trial.key != outcome.baseline.key:
        ratio = _ratio(outcome.best, trial, circumstances)
        return ratio and ratio / raced.ratio.value
    return _ratio(outcome.baseline, trial, circumstances)


def _ratio(before: Trial, now: Trial, circumstances: Circumstances) -> float | None:
    """Return how many times better one trial's figure is than another's, each as it was measured by itself."""
    goal = circumstances.goal
    new, old = (t.evaluation.objective(goal) if t.evaluation else None for t in (now, before))
    if new is None or old is None or not new.value or not old.value:
        return None
    return new.value / old.value if goal.minimize == "throughput" else old.value / new.value


_ADJECTIVES = {
    "latency": ("faster", "slower"),
    "throughput": ("more throughput", "less throughput"),
    "size": ("smaller", "larger"),
    "zipped-size": ("smaller zipped", "larger zipped"),
    "memory": ("less memory", "more memory"),
    "cold-start": ("faster cold start", "slower cold start"),
}


def comparison(factor: float, minimize: str) -> str:
    """Return ``3.2× smaller`` and the like for a gain."""
    better, worse = _ADJECTIVES[minimize]
    return f"{_factor(factor)}× {better}" if factor >= 1 else f"{_factor(1 / factor)}× {worse}"


def headline(outcome: Outcome, circumstances: Circumstances) -> str:
    """Return the outcome in one sentence."""
    if outcome.best is None and outcome.by_user:
        return "interrupted before anything was proved; the same command again goes on"
    if outcome.best is None:
        if outcome.nothing_ran and outcome.interrupted:
            return "the budget was used up before one candidate was measured; the same command with more goes on"
        if outcome.nothing_ran:
            return "not one candidate could be run; the report has each one's reason"
        if outcome.nearest is None:
            return "nothing met the limits"
        fidelity = outcome.nearest.evaluation and outcome.nearest.evaluation.fidelity
        drop = f", which drops {fidelity.drop_of} by {fidelity.drop.value:.4g}" if fidelity else ""
        return f"nothing met the limits; the nearest was {outcome.nearest.recipe}{drop}"
    if outcome.best.key == outcome.baseline.key:
        return "nothing was proved better than the original, which is kept"
    factor = gain(outcome, outcome.best, circumstances) or 1.0
    said = comparison(factor, circumstances.goal.minimize)
    return f"{said}, {quality(outcome)}{_slower(outcome, circumstances)}"


def _slower(outcome: Outcome, circumstances: Circumstances) -> str:
    """Return by how much a winner that was not chosen for its speed is slower than the original, if it is."""
    goal = circumstances.goal
    if goal.minimize in ("latency", "throughput") or outcome.best is None:
        return ""
    name = f"latency_p50@{goal.batch}"
    before = figure(outcome.baseline.evaluation, name)
    now = figure(outcome.best.evaluation, name)
    # These two were timed one after the other and not in turn: what is within a few percent may be the machine's doing.
    if before is None or now is None or now.low <= max(before.high, 1.05 * before.value):
        return ""
    return f", but {comparison(before.value / now.value, 'latency')}"


def quality(outcome: Outcome) -> str:
    """Return what became of the winner's quality, on samples not looked at before."""
    fidelity = outcome.confirmed
    if fidelity is None:
        return "quality not confirmed"
    if fidelity.metric and fidelity.baseline_metric:
        return f"{fidelity.metric_of} {fidelity.baseline_metric.value:.4g} → {fidelity.metric.value:.4g}"
    if fidelity.drop_of == TOP1_AGREEMENT:
        return f"{1 - fidelity.drop.value:.2%} of answers the same as the original's"
    return f"relative error {fidelity.drop.value:.2g}"


def pooled_drop(outcome: Outcome, circumstances: Circumstances) -> float | None:
    """Return the winner's drop on *select* and *confirm* together where that alone is within the limit; else None."""
    fidelity, best = outcome.confirmed, outcome.best
    chosen_on = best.evaluation.fidelity if best and best.evaluation else None
    if fidelity is None or chosen_on is None:
        return None
    limit = max(circumstances.goal.max_drop, fidelity.floor)
    return fidelity.drop_with(chosen_on) if fidelity.drop.value > limit else None


def not_quantized(trial: Trial) -> list[tuple[str, dict[str, str]]]:
    """Return what a trial's passes left alone, under a title each: names with the reason."""
    titles = {
        "left_in_float": "Left in float",
        "left_alone": "Left alone, or with more bits than asked for",
    }
    return [(title, trial.facts[fact]) for fact, title in titles.items() if trial.facts.get(fact)]
