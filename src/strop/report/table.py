"""The trials as a table: rows of plain text, Markdown, and ``trials.csv``."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from strop.core.evaluation import TOP1_AGREEMENT
from strop.engine.ledger import Trial
from strop.engine.outcome import Circumstances, Outcome, figure
from strop.report.words import comparison, gain, interval, percent, pooled_drop, quantity


@dataclass(frozen=True)
class Row:
    """One trial for people.

    Attributes:
        number: Its number.
        recipe: The recipe's line.
        state: ``best``, ``baseline``, ``kept``, ``missed``, ``failed``, ``declined`` or ``dropped``.
        time: Median latency.
        gain: Times better than the baseline, in what was minimized.
        quality: The metric, or the agreement.
        size: On disk.
        reason: Why it failed, missed, was declined, or did not help.
    """

    number: int
    recipe: str
    state: str
    time: str
    gain: str
    quality: str
    size: str
    reason: str


def rows(outcome: Outcome, circumstances: Circumstances) -> list[Row]:
    """Return all trials: those that kept the limits first, best first, then the others."""
    order = {
        "best": 0,
        "baseline": 1,
        "compared": 2,
        "kept": 3,
        "missed": 4,
        "declined": 5,
        "dropped": 6,
        "failed": 7,
    }
    found = [(_row(outcome, circumstances, trial), trial) for trial in outcome.trials]

    def key(pair: tuple[Row, Trial]) -> tuple[int, float]:
        row, trial = pair
        better = gain(outcome, trial, circumstances)
        return (
            min(order[row.state], 3)
            if row.state in ("best", "baseline", "compared", "kept")
            else order[row.state],
            -(better or 0),
        )

    return [row for row, _ in sorted(found, key=key)]


def _row(outcome: Outcome, circumstances: Circumstances, trial: Trial) -> Row:
    goal = circumstances.goal
    better = gain(outcome, trial, circumstances)
    time = figure(trial.evaluation, f"latency_p50@{goal.batch}")
    return Row(
        trial.number,
        str(trial.recipe),
        _state(outcome, trial),
        quantity(time),
        f"{better:.2f}×" if better else "–",
        _quality(trial),
        quantity(figure(trial.evaluation, "size")),
        trial.reason or outcome.explanations.get(trial.key, ""),
    )


def _state(outcome: Outcome, trial: Trial) -> str:
    if outcome.best and trial.key == outcome.best.key:
        return "best"
    if trial.key == outcome.baseline.key:
        return "baseline"
    if trial.state != "done":
        return trial.state
    if not trial.evaluation or not trial.evaluation.fidelity:
        return "compared"
    return "missed" if trial.reason else "kept"


def _quality(trial: Trial) -> str:
    fidelity = trial.evaluation.fidelity if trial.evaluation else None
    if fidelity is None:
        return "–"
    if fidelity.metric:
        return f"{fidelity.metric.value:.4g}"
    if fidelity.drop_of == TOP1_AGREEMENT:
        return f"{1 - fidelity.drop.value:.2%} agree"
    return f"error {fidelity.drop.value:.2g}"


def markdown_table(
    outcome: Outcome, circumstances: Circumstances, *, most: int | None = None
) -> str:
    """Return the trials as a Markdown table.

    Args:
        outcome: What was found.
        circumstances: Under what.
        most: How many rows at most; None for all.
    """
    lines = [
        "| | recipe | time | gain | quality (select) | size | |",
        "|--:|---|--:|--:|--:|--:|---|",
    ]
    for row in rows(outcome, circumstances)[:most]:
        cells = [
            f"{row.number}",
            f"`{row.recipe}`",
            row.time,
            row.gain,
            row.quality,
            row.size,
        ]
        note = f"**{row.state}**" if row.state == "best" else row.state
        reason = f": {row.reason}" if row.reason else ""
        cells.append((note + reason).replace("|", "\\|").replace("\n", " "))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def beside(outcome: Outcome, circumstances: Circumstances) -> list[tuple[str, str, str]]:
    """Return what was found of the original and of the winner: a label, the original's, the winner's.

    Args:
        outcome: What was found; without a winner there is nothing to return.
        circumstances: Under what.
    """
    best = outcome.best
    if best is None:
        return []
    found = []
    for name, label in _labels(circumstances).items():
        before, after = (figure(t.evaluation, name) for t in (outcome.baseline, best))
        if before or after:
            found.append((label, quantity(before), quantity(after)))
    fidelity = outcome.confirmed
    if fidelity:
        if fidelity.metric and fidelity.baseline_metric:
            values = (f"{m.value:.4g}" for m in (fidelity.baseline_metric, fidelity.metric))
            found.append((fidelity.metric_of, *values))  # type: ignore[arg-type]
        drop = fidelity.drop
        found.append(
            (
                f"drop ({fidelity.drop_of}), {percent(drop.confidence)} interval",
                "",
                f"{drop.value:.4g} ({interval(drop)})",
            )
        )
        pooled = pooled_drop(outcome, circumstances)
        if pooled is not None:
            found.append(("drop on select and confirm together", "", f"{pooled:.4g}"))
        found.append(("largest difference of an output", "", f"{fidelity.max_abs:.3g}"))
    pair = outcome.pair_of(best)
    if pair and pair.rounds:
        ratio = pair.ratio
        said = comparison(1 / ratio.value, circumstances.goal.minimize)
        said = f"{said} ({1 / ratio.high:.2f}× to {1 / ratio.low:.2f}×)"
        if pair.latency:
            said = f"{quantity(pair.latency)}, {said}"
        original = quantity(pair.reference_latency) if pair.reference_latency else "1×"
        found.append(("paired", original, said))
    return found


def _labels(circumstances: Circumstances) -> dict[str, str]:
    """Return what is told of original and winner, in words, by the measurement's name."""
    labels = {}
    for batch in dict.fromkeys(circumstances.goal.batch_sizes):
        labels[f"latency_p50@{batch}"] = f"latency, median, batch {batch}"
        labels[f"latency_p90@{batch}"] = f"latency, 90 %, batch {batch}"
        labels[f"latency_p99@{batch}"] = f"latency, 99 %, batch {batch}"
        labels[f"throughput@{batch}"] = f"throughput, batch {batch}"
    return labels | {
        "size": "size on disk",
        "zipped_size": "size zipped",
        "cold_start": "cold start",
        "peak_memory": "peak memory, over the process before",
        "resident_memory": "resident memory, all of the process",
    }


def csv_text(outcome: Outcome, circumstances: Circumstances) -> str:
    """Return every trial as CSV, with all that was measured, also those that failed or were declined."""
    names = sorted({n for t in outcome.trials if t.evaluation for n in t.evaluation.measurements})
    columns = [
        f"{name} [{_unit(outcome, name)}]" if _unit(outcome, name) else name for name in names
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = [
        "number",
        "state",
        "recipe",
        "reason",
        "metric",
        "drop",
        "drop_low",
        "drop_high",
        "sqnr_db",
        "max_abs",
    ]
    writer.writerow([*head, *columns, "seconds"])
    for trial in outcome.trials:
        fidelity = trial.evaluation.fidelity if trial.evaluation else None
        quality: list[object] = [""] * 6
        if fidelity:
            metric = fidelity.metric.value if fidelity.metric else ""
            drop = fidelity.drop
            quality = [
                metric,
                drop.value,
                drop.low,
                drop.high,
                fidelity.sqnr_db,
                fidelity.max_abs,
            ]
        figures = [figure(trial.evaluation, name) for name in names]
        values = [f"{f.value:.6g}" if f else "" for f in figures]
        reason = trial.reason or outcome.explanations.get(trial.key, "")
        state = _state(outcome, trial)
        writer.writerow(
            [
                trial.number,
                state,
                str(trial.recipe),
                reason,
                *quality,
                *values,
                f"{trial.seconds:.2f}",
            ]
        )
    return text.getvalue()


def _unit(outcome: Outcome, name: str) -> str:
    return next(
        (
            t.evaluation.measurements[name].unit
            for t in outcome.trials
            if figure(t.evaluation, name) and t.evaluation
        ),
        "",
    )
