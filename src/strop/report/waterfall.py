"""What each step of the winner brought: a ladder of measured trials from the original to it, and its picture."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from strop.core import registry
from strop.core.evaluation import Goal, Measurement
from strop.core.recipe import Recipe
from strop.engine.changes import Change, changes, differ, follows, is_plain
from strop.engine.ledger import Trial
from strop.engine.outcome import Outcome
from strop.report.words import comparison, quantity

_WIDE = 18  # letters that fit under a bar
_BETTER, _WORSE, _QUIET = "#0f766e", "#b4533c", "#94a3b8"


@dataclass(frozen=True)
class Rung:
    """A measured trial on the way from the original to the winner.

    Attributes:
        trial: The trial.
        added: What it does as the winner does, and the rung below does not; several where nothing between was measured.
    """

    trial: Trial
    added: tuple[Change, ...]


def ladder(outcome: Outcome, goal: Goal) -> list[Rung]:
    """Return the way from the original to the winner in as many rungs as were measured; empty where it is kept.

    Each rung does all that the one below has of the winner's recipe, and more; settings come as late as they can.
    """
    best = outcome.best
    if best is None or best.key == outcome.baseline.key:
        return []
    way = [t for t in outcome.trials if t.key != best.key and _leads_to(best.recipe, t)]
    ends = [outcome.baseline, best]
    if not all(_figure(trial, goal) for trial in ends):
        return []
    way = [t for t in way if t.key != outcome.baseline.key and _figure(t, goal)]
    wanted = set(changes(best.recipe))
    has = {t.key: wanted.intersection(changes(t.recipe)) for t in (*ends, *way)}
    chains = {outcome.baseline.key: [outcome.baseline]}
    for trial in sorted([*way, best], key=lambda t: len(has[t.key])):
        below = [chain for chain in chains.values() if has[chain[-1].key] < has[trial.key]]
        if below:
            longest = max(below, key=lambda chain: (len(chain), -_settings_in(chain)))
            chains[trial.key] = [*longest, trial]
    return list(_rungs(chains[best.key], wanted))


def _leads_to(goal: Recipe, trial: Trial) -> bool:
    """Say whether a trial does nothing that the recipe does not do, but for running it plainly on the way."""
    recipe, wanted = trial.recipe, changes(goal)
    kind = registry.runtimes.get(recipe.runtime)
    if trial.state != "done" or kind.is_for_comparison or len(recipe.steps) > len(goal.steps):
        return False
    in_same = recipe.runtime == goal.runtime
    if not in_same and len(recipe.steps) == len(goal.steps):
        return False
    return all(
        change in wanted
        or follows(change, goal)
        or (change.is_of_runtime and change.value is None)
        or (
            change.is_of_runtime
            and is_plain(recipe, change)
            and (change.name in goal.settings or not in_same)
        )
        for change in changes(recipe)
    )


def _settings_in(chain: Sequence[Trial]) -> int:
    return sum(len(trial.recipe.settings) for trial in chain)


def _rungs(chain: Sequence[Trial], wanted: Iterable[Change]) -> Iterable[Rung]:
    done: set[Change] = set()
    for trial in chain:
        here = [change for change in changes(trial.recipe) if change in wanted]
        yield Rung(trial, tuple(change for change in here if change not in done))
        done.update(here)


def _figure(trial: Trial, goal: Goal) -> Measurement | None:
    measured = trial.evaluation.objective(goal) if trial.evaluation else None
    return measured if measured and measured.value else None  # nought is no multiple of anything


def waterfall(outcome: Outcome, goal: Goal) -> dict[str, Any]:
    """Return the picture of the ladder as Plotly's plain values; without data where there is no way to show."""
    rungs = ladder(outcome, goal)
    found = [figure for rung in rungs if (figure := _figure(rung.trial, goal))]
    if not found:
        return {"data": [], "layout": {}}
    values = [figure.value for figure in found]
    pairs = list(itertools.pairwise(values))
    labels = [
        "<br>".join(["original", *_place(rungs[0])]),
        *itertools.starmap(_label, itertools.pairwise(rungs)),
        "best",
    ]
    reached = [quantity(figure) for figure in found]
    brought = [_brought(*both, goal) for both in itertools.pairwise(found)]
    texts = [reached[0], *map("{}<br>{}".format, reached[1:], brought), reached[-1]]
    tops = [values[0], *map(max, pairs), values[-1]]
    rise, fall = (_BETTER, _WORSE) if goal.minimize == "throughput" else (_WORSE, _BETTER)
    return {
        "data": [
            {
                "type": "waterfall", "x": labels, "hoverinfo": "skip", "textposition": "none",
                "measure": ["absolute", *("relative" for _ in pairs), "total"],
                "y": [values[0], *(now - before for before, now in pairs), values[-1]],
                "increasing": {"marker": {"color": rise}},
                "decreasing": {"marker": {"color": fall}},
                "totals": {"marker": {"color": _QUIET}},
                "connector": {"line": {"color": _QUIET, "width": 1, "dash": "dot"}},
            }
        ],
        "layout": {
            "xaxis": {"tickangle": 0, "showgrid": False},
            "yaxis": {
                "title": {"text": f"{goal.minimize} ({found[0].unit})"},
                "range": [0, 1.2 * max(values)],  # with room for what stands above the bars
            },
            # Plotly would write a falling bar's text beneath it, where the next one's label may be.
            "annotations": [
                {"x": x, "y": top, "text": text, "yanchor": "bottom", "showarrow": False, "font": {"size": 12}}
                for x, top, text in zip(labels, tops, texts, strict=True)
            ],
            "waterfallgap": 0.45,
        },
    }  # fmt: skip


def _label(below: Rung, rung: Rung) -> str:
    """Return what a rung adds, in lines short enough to stand side by side."""
    moved = below.trial.recipe.runtime != rung.trial.recipe.runtime
    added = [str(change) for change in rung.added if not (moved and change.is_of_runtime)]
    lines = [
        line.replace(".", ".<br>", 1) if len(line) > _WIDE else line
        for line in map(html.escape, added)
    ]
    return "<br>".join([*lines, *(_place(rung) if moved else ())])


def _place(rung: Rung) -> list[str]:
    """Return the engine of a rung and its settings, a line each."""
    here = [change for change in changes(rung.trial.recipe) if change.is_of_runtime]
    return [html.escape(str(change)) for change in here]


def _brought(before: Measurement, now: Measurement, goal: Goal) -> str:
    """Return how many times better or worse a figure became."""
    if not differ(now, before, goal):
        return "no sure difference"
    ratio = before.value / now.value
    return comparison(1 / ratio if goal.minimize == "throughput" else ratio, goal.minimize)
