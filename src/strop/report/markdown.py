"""``report.md``: what a pull request needs."""

from __future__ import annotations

from strop.engine.outcome import Circumstances, Outcome, figure
from strop.report.absent import not_tried
from strop.report.table import beside, markdown_table
from strop.report.words import headline, not_quantized, percent, pooled_drop, quantity


def markdown(outcome: Outcome, circumstances: Circumstances) -> str:
    """Return the report as Markdown."""
    parts = [
        f"# {circumstances.source_name}: {headline(outcome, circumstances)}",
        _winner(outcome, circumstances),
        "## What was tried",
        markdown_table(outcome, circumstances),
        "## How it was measured",
        *(f"- {line}" for line in how(outcome, circumstances)),
        "## To do it again",
        f"```\n{circumstances.command}\n```",
        ", ".join(f"{name} {version}" for name, version in circumstances.versions.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def how(outcome: Outcome, circumstances: Circumstances) -> list[str]:
    """Return sentences on machine, samples, metric and timing."""
    goal, machine = circumstances.goal, circumstances.machine
    lines = [
        f"On {machine['processor']}, {machine['cores']} cores, {machine['system']}; "
        f"{', '.join(machine['instructions']) or 'no instructions that matter'}.",
        f"Minimized: {goal.minimize} at batch {goal.batch}; limit: a drop of at most {goal.max_drop:g}"
        + _or_the_floor(outcome, goal.max_drop)
        + (f", held by the upper bound at {percent(goal.confidence)}" if goal.confidence else "")
        + (f", and an SQNR of at least {goal.min_sqnr_db:g} dB" if goal.min_sqnr_db else "")
        + ".",
        *_counted(outcome),
        _sentence(circumstances.question),
        *map(_sentence, circumstances.notes),
        *_judged(outcome, circumstances),
        "Trials ran in worker processes, one an engine, which may crash without harm to the study; times are "
        "medians of single calls, inputs in memory and outputs read.",
    ]
    if outcome.pairs and goal.minimize in ("latency", "throughput"):
        pair = outcome.pairs[0]
        lines.append(
            f"Finalists were timed in {pair.rounds} rounds, each in a process of its own, in turn with the "
            "original, in changing order; the ratio is the Hodges–Lehmann estimate over rounds with Wilcoxon's "
            f"signed-rank interval, at {percent(pair.ratio.confidence)} for all finalists at once."
        )
        lines += _as_good(outcome)
    lines += not_tried(outcome)
    if outcome.interrupted:
        lines.append(
            "The search was ended before it was through; what is here is the best so far."
        )
    return lines


def _or_the_floor(outcome: Outcome, max_drop: float) -> str:
    """Return what of a stochastic original stands in place of the limit; empty where the limit stands."""
    judged = (t.evaluation.fidelity for t in outcome.trials if t.evaluation)
    floor = max((fidelity.floor for fidelity in judged if fidelity), default=0.0)
    return (
        f", or of {floor:.3g}, which the original shows against itself" if floor > max_drop else ""
    )


def _as_good(outcome: Outcome) -> list[str]:
    """Return which finalists may be as good as the winner, for all that was measured."""
    won = outcome.pair_of(outcome.best) if outcome.best else None
    if won is None or won.is_told_apart:
        return []  # the original won, or those better in the race were given up
    given_up = {str(trial.recipe) for trial in outcome.trials if trial.reason}
    equals = [
        pair.name
        for pair in outcome.pairs
        if pair.name != won.name and pair.name not in given_up and not pair.is_told_apart
    ]
    return [f"Not told apart from the best: {'; '.join(equals)}."] if equals else []


def _counted(outcome: Outcome) -> list[str]:
    """Return how large the original is, as far as it was counted."""
    parameters, macs = (
        figure(outcome.baseline.evaluation, name) for name in ("parameters", "macs")
    )
    if parameters is None:
        return []
    work = (
        f"takes {quantity(macs)} multiply-accumulates a sample"
        if macs
        else "does not tell by its graph how many multiply-accumulates a sample takes"
    )
    return [f"The original has {quantity(parameters)} parameters and {work}."]


def _judged(outcome: Outcome, circumstances: Circumstances) -> list[str]:
    """Return on which samples the figures of quality were found."""
    found = [t.evaluation.fidelity for t in outcome.trials if t.evaluation]
    counts = sorted({f.samples for f in found if f})
    if not counts:
        return []
    few = f"{counts[0]} to " if len(counts) > 1 else ""
    said = f"In the table, quality is on *select* ({few}{counts[-1]} samples)"
    if outcome.confirmed:
        said += f", which the search looked at; the winner's on *confirm* ({outcome.confirmed.samples} samples)"
        said += ", which it did not, stands above"
    lines = [f"{said}."]
    pooled = pooled_drop(outcome, circumstances)
    if pooled is not None and outcome.confirmed:
        lines.append(
            "On *confirm* alone the drop is above the limit, which its interval does not exclude; on *select* and "
            f"*confirm* together it is {pooled:.4g}, and the limit is held to that."
        )
    if outcome.looks > 1:
        lines.append(
            f"{outcome.looks} candidates were judged on *confirm*, one after the other, over all runs in this "
            "folder: each look makes it a little less unseen."
        )
    return lines


def _sentence(text: str) -> str:
    text = text.rstrip(".")
    return text[:1].upper() + text[1:] + "."


def _winner(outcome: Outcome, circumstances: Circumstances) -> str:
    best = outcome.best
    if best is None:
        return ""
    lines = ["| | original | best |", "|---|--:|--:|"]
    lines += [f"| {' | '.join(row)} |" for row in beside(outcome, circumstances)]
    kept = ""
    for title, left in not_quantized(best):
        listed = "\n".join(f"- `{name}`: {reason}" for name, reason in left.items())
        kept += f"\n\n{title}:\n\n{listed}"
    table = "\n".join(lines)
    return f"{table}\n\n`{best.recipe}`\n\n```toml\n{best.recipe.to_toml()}```{kept}"
