"""What a recipe consists of, change by change, and which measured trial another differs from by one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from strop.core import registry
from strop.core.contracts import PlugIn
from strop.core.evaluation import Goal, Measurement
from strop.core.parameters import Value
from strop.core.recipe import Recipe, setting
from strop.engine.ledger import Trial

_RUNTIME = -1
# A model that is converted for one batch size is converted anew for the part that it is to take: the two settings are
# one change.
_ALONG_WITH = {"micro_batch": "batch"}
# What two trials of one thing differ by anyhow: they are measured one after the other, and what only a fresh process
# shows is asked of a single one.
_ANYHOW = {
    "latency": 0.02,
    "throughput": 0.02,
    "size": 0.02,
    "zipped-size": 0.02,
    "memory": 0.05,
    "cold-start": 0.2,
}


@dataclass(frozen=True)
class Change:
    """One thing that a recipe does to the original: a pass, an engine, or a setting of either.

    Attributes:
        place: The step's position, from 0; -1 for the runtime.
        name: The pass's, the runtime's or the setting's.
        value: The setting's; None for a pass or a runtime itself.
    """

    place: int
    name: str
    value: Value | None = None

    @property
    def is_of_runtime(self) -> bool:
        """Whether it changes how the file is run and not the file."""
        return self.place == _RUNTIME

    def __str__(self) -> str:
        if self.value is not None:
            return setting(self.name, self.value)
        return f"@ {self.name}" if self.is_of_runtime else self.name


@dataclass(frozen=True)
class Comparison:
    """What a trial is compared with, to see what one change brought.

    Attributes:
        what: The change in words; where it is one, `change` has it.
        to: What the other is, in words that follow a quantity (``without it``, ``with threads=1``).
        other: The other.
        change: The change; None where the whole recipe is compared.
    """

    what: str
    to: str
    other: Trial
    change: Change | None = None


def changes(recipe: Recipe) -> tuple[Change, ...]:
    """Return all that a recipe does, in the order of its line.

    Example:
        >>> from strop.core.recipe import Step
        >>> recipe = Recipe((Step("convert.litert", {"batch": 1}),), "litert", {"threads": 2})
        >>> [str(change) for change in changes(recipe)]
        ['convert.litert', 'batch=1', '@ litert', 'threads=2']
    """
    found = []
    for place, step in enumerate(recipe.steps):
        found.append(Change(place, step.name))
        found += [Change(place, *item) for item in sorted(step.settings.items())]
    found.append(Change(_RUNTIME, recipe.runtime))
    return (*found, *(Change(_RUNTIME, *item) for item in sorted(recipe.settings.items())))


def precedence(recipe: Recipe, change: Change) -> Callable[[Value], int]:
    """Return what orders values of the setting that `change` is about: its default, as a search tries them, others."""
    kind = _kind(recipe, change)
    order = (kind.defaults()[change.name], *kind.parameters()[change.name].search)
    return lambda value: order.index(value) if value in order else len(order) + 1


def is_plain(recipe: Recipe, change: Change) -> bool:
    """Say whether an engine's setting is at its default, or at what a search begins with where that leaves it out."""
    return change.value is not None and precedence(recipe, change)(change.value) <= 1


def follows(change: Change, recipe: Recipe) -> bool:
    """Say whether a step's setting is what it is because of a setting that `recipe` gives its runtime."""
    return not change.is_of_runtime and change.name in {
        along for setting, along in _ALONG_WITH.items() if setting in recipe.settings
    }


def differ(now: Measurement, before: Measurement, goal: Goal) -> bool:
    """Say whether two trials differ in what is minimized by more than their intervals, and than such figures do anyhow."""
    apart = now.low > before.high or before.low > now.high
    return apart and abs(now.value / before.value - 1) > _ANYHOW[goal.minimize]


def comparisons(trial: Trial, trials: Iterable[Trial], original: Trial) -> list[Comparison]:
    """Return what a trial is to be compared with, one for each change that a measured trial lacks.

    Each setting is held against its default (where that was not measured, against the value that is searched first),
    and the last technique against the same recipe without it, else against plain conversions in the same engine and
    settings. What is left is held against the shorter way to the same form, or the original.

    Args:
        trial: Which one; measured.
        trials: All of the study.
        original: How the source runs today.
    """
    # What was dropped was timed by a single call, which is nothing to measure others by.
    others = [t for t in trials if t.evaluation and t.state == "done" and t.key != trial.key]
    found = [*_of_settings(trial.recipe, others), *_of_technique(trial.recipe, others)]
    if found:
        return found
    steps = trial.recipe.steps
    shorter = [
        other
        for other in others
        if _same_engine(trial.recipe, other.recipe)
        and len(other.recipe.steps) < len(steps)
        and other.recipe.steps[-1:] == steps[-1:]
    ]
    if steps and shorter:
        return [Comparison("the longer way", "by the shorter one", shorter[0])]
    plain = "the conversion" if all(step.is_conversion for step in steps) else "the whole recipe"
    return [Comparison(plain if steps else "the engine", "of the original", original)]


def _of_settings(recipe: Recipe, others: Sequence[Trial]) -> list[Comparison]:
    """Return a comparison for each setting that another trial, equal but for it, has at a plainer value."""
    found = []
    for change in changes(recipe):
        if change.value is None:
            continue
        alike = [t for t in others if _but(t.recipe, change) == _but(recipe, change)]
        order = precedence(recipe, change)
        values = [(_value(t.recipe, change), t) for t in alike]
        plainest = min(values, key=lambda pair: order(pair[0]), default=None)
        if plainest and order(plainest[0]) < order(change.value):
            to = f"with {setting(change.name, plainest[0])}"
            found.append(Comparison(str(change), to, plainest[1], change))
    return found


def _of_technique(recipe: Recipe, others: Sequence[Trial]) -> list[Comparison]:
    """Return the comparison of the last technique with a trial without it, if there is one."""
    techniques = [n for n, step in enumerate(recipe.steps) if not step.is_conversion]
    if not techniques:
        return []
    place, steps = techniques[-1], recipe.steps
    change = Change(place, steps[place].name)
    without = (*steps[:place], *steps[place + 1 :])
    near = [other for other in others if _same_engine(recipe, other.recipe)]
    for other in near:
        if other.recipe.steps == without:
            return [Comparison(change.name, "without it", other, change)]
    # A technique that converts as well has nothing of its form before it.
    plain = [other for other in near if all(step.is_conversion for step in other.recipe.steps)]
    if not plain:
        return []
    nearest = max(plain, key=lambda other: _shared(other.recipe, recipe))
    to = f"by {nearest.recipe}".split(" @ ")[0]
    return [Comparison(change.name, to, nearest, change)]


def _same_engine(one: Recipe, other: Recipe) -> bool:
    return (one.runtime, one.settings) == (other.runtime, other.settings)


def _shared(one: Recipe, other: Recipe) -> int:
    """Return how many steps two recipes begin with alike."""
    pairs = enumerate(zip(one.steps, other.steps, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one.steps), len(other.steps)))


def _but(recipe: Recipe, change: Change) -> frozenset[Change]:
    """Return what a recipe does but for the setting that `change` is about."""
    return frozenset(
        other
        for other in changes(recipe)
        if other.value is None
        or (
            (other.place, other.name) != (change.place, change.name)
            and other.name != _ALONG_WITH.get(change.name)
        )
    )


def _value(recipe: Recipe, change: Change) -> Value:
    """Return the value that a recipe has for the setting that `change` is about."""
    settings = recipe.settings if change.is_of_runtime else recipe.steps[change.place].settings
    return settings.get(change.name, _kind(recipe, change).defaults()[change.name])


def _kind(recipe: Recipe, change: Change) -> type[PlugIn]:
    if change.is_of_runtime:
        return registry.runtimes.get(recipe.runtime)
    return registry.passes.get(recipe.steps[change.place].name)
