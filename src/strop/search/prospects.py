"""Whether a recipe is worth its time, by what others were measured at."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from strop.core import registry
from strop.core.parameters import Value
from strop.core.recipe import Recipe, Step
from strop.engine.ledger import Trial
from strop.engine.outcome import figure
from strop.search.space import Space
from strop.search.trials import Trials

# From here on what it costs to start threads and to enter a call is nothing beside the work, so that what a setting
# does with one model tells what it does with another.
_LONG_MS = 20.0
# Any memory gives several times as much; a model that reads its weights more slowly does not wait for them.
_SLOW_READING = 1e9  # bytes a second
# Settings of which one value tells of the others where it made a model slower: they differ in how much, not in what.
_ALIKE = frozenset({"jit", "micro_batch"})
# Settings that leave the arithmetic as it is, so that what they do with float models says little of faster ones.
_TUNINGS = frozenset({"graph_optimization", "threads"})
# How many times behind the best a model may be to be converted anew for parts of a batch; parts brought a fifth at most.
_WORTH_REMAKING = 1.1


@dataclass(frozen=True)
class Prospects:
    """What the trials so far say of those to come, where time is minimized.

    Attributes:
        trials: What was measured.
        space: What the engines' settings are.
    """

    trials: Trials
    space: Space

    def hopeless(self, steps: tuple[Step, ...] | None) -> str:
        """Return why techniques on what `steps` lead to are not worth trying; empty where they are."""
        best = self._best()
        here = self.trials.best_of(
            t for t in self.trials.known.values() if t.recipe.steps == steps
        )
        if best is None or here is None:
            return ""
        ratio = self.trials.value(here) / self.trials.value(best)
        if ratio <= self.trials.pace.hopeless:
            return ""
        return (
            f"in float this way takes {ratio:.1f} times the best; no technique makes up for that"
        )

    def without(self, recipe: Recipe) -> str:
        """Return why `recipe` is without prospects; empty where it has some."""
        return (
            self._far_behind(recipe)
            or self._settings_lost(recipe)
            or self._weights_lost(recipe)
            or self._not_worth_remaking(recipe)
        )

    def may_wait(self, recipe: Recipe) -> bool:
        """Say whether `recipe` is one with long calls tuned, which waits until it is known what is among the best."""
        changed, plain = self._changed(recipe)
        trial = self._measured(plain)
        return bool(_TUNINGS & changed.keys()) and trial is not None and self._is_long(trial)

    def _far_behind(self, recipe: Recipe) -> str:
        """Return why an engine's other settings are not worth trying; empty where they are."""
        best = self._best()
        tried = [
            trial
            for trial in self.trials.known.values()
            if trial.evaluation
            and (trial.recipe.steps, trial.recipe.runtime) == (recipe.steps, recipe.runtime)
        ]
        if best is None or not tried:
            return ""
        ratio = min(map(self.trials.value, tried)) / self.trials.value(best)
        if ratio <= self.trials.pace.far:
            return ""
        return f"in other settings it takes {ratio:.1f} times the best; settings alone don't make up for that"

    def _settings_lost(self, recipe: Recipe) -> str:
        """Return why `recipe` will not reach the best, by what its settings did with other models in its engine."""
        changed, plain = self._changed(recipe)
        best, trial = self._best(), self._measured(plain)
        if best is None or trial is None or not changed or not self._is_long(trial):
            return ""
        factor = math.prod(self._factor(plain, key, value) for key, value in changed.items())
        behind = self.trials.value(trial) / self.trials.value(best)
        if behind * factor * self.trials.pace.trusted <= 1:
            return ""
        what = ", ".join(f"{key}={value}" for key, value in changed.items())
        title = registry.runtimes.get(recipe.runtime).title
        return (
            f"{what} takes {factor:.2f} times as long in {title}, as other trials show, and this model without it "
            f"{behind:.2f} times the best"
        )

    def _weights_lost(self, recipe: Recipe) -> str:
        """Return why smaller weights will not make a model the best; empty where they may."""
        if not recipe.steps or not registry.passes.get(recipe.steps[-1].name).only_shrinks_weights:
            return ""
        best = self._best()
        trial = self._measured(Recipe(recipe.steps[:-1], recipe.runtime, recipe.settings))
        size = figure(trial.evaluation, "size") if trial else None
        if best is None or trial is None or size is None or not self._is_long(trial):
            return ""
        behind = self.trials.value(trial) / self.trials.value(best)
        rate = size.value / (self._milliseconds(trial) / 1e3)
        if rate > _SLOW_READING or behind * self.trials.pace.trusted <= 1:
            return ""
        return (
            f"it makes weights smaller, of which the model without it reads {rate / 1e9:.2g} GB a second, so that "
            f"it hardly waits for them; it takes {behind:.2f} times the best"
        )

    def _not_worth_remaking(self, recipe: Recipe) -> str:
        """Return why a model is not converted anew for parts of a batch; empty where it is, or need not be."""
        plain = self.space.plain(recipe)
        best, trial = self._best(), self._measured(plain)
        if (
            best is None
            or trial is None
            or not self._is_long(trial)
            or recipe.steps == plain.steps
        ):
            return ""
        behind = self.trials.value(trial) / self.trials.value(best)
        if not self.trials.pace.trusted or behind <= _WORTH_REMAKING:
            return ""
        return f"it would be converted anew for parts of a batch, and takes {behind:.2f} times the best"

    def _factor(self, plain: Recipe, key: str, value: Value) -> float:
        """Return the least factor by which a setting changed an engine's times; 0, a hope, where no trial shows it.

        What it did with the same model counts alone where there is that; so does what another value of it did, for
        settings of which that tells, where it was slower.
        """
        # The same model's word counts most, then what this very value did, then what a value like it did.
        told: dict[tuple[bool, bool], list[float]] = defaultdict(list)
        for other in self.trials.known.values():
            if other.recipe.runtime != plain.runtime or not self._has_time(other):
                continue
            changed, its_plain = self._changed(other.recipe)
            before = self._measured(its_plain)
            if changed.keys() != {key} or before is None or not self._is_long(before):
                continue
            factor = self.trials.value(other) / self.trials.value(before)
            is_same = changed[key] == value
            if is_same or (key in _ALIKE and factor > 1):
                told[its_plain.steps == plain.steps, is_same].append(factor)
        return min(told[max(told)], default=0.0) if told else 0.0

    def _changed(self, recipe: Recipe) -> tuple[dict[str, Value], Recipe]:
        """Return the settings in which `recipe` differs from its engine's first, and the recipe with those."""
        plain = self.space.plain(recipe)
        kind = registry.runtimes.get(recipe.runtime)
        first = vars(kind.from_settings(plain.settings))
        here = vars(kind.from_settings(recipe.settings))
        return {key: value for key, value in here.items() if value != first[key]}, plain

    def _measured(self, recipe: Recipe) -> Trial | None:
        trial = self.trials.known.get(str(recipe))
        return trial if trial and self._has_time(trial) else None

    def _has_time(self, trial: Trial) -> bool:
        return trial.evaluation is not None and math.isfinite(self.trials.value(trial))

    def _is_long(self, trial: Trial) -> bool:
        return self._milliseconds(trial) >= _LONG_MS

    def _milliseconds(self, trial: Trial) -> float:
        """Return how long a call takes; 0 where that was not measured."""
        taken = figure(trial.evaluation, f"latency_p50@{self.trials.goal.batch}")
        return taken.value if taken else 0.0

    def _best(self) -> Trial | None:
        """Return the best so far; None where it is not time that is minimized."""
        if self.trials.goal.minimize not in ("latency", "throughput"):
            return None
        return self.trials.best_of(self.trials.known.values())
