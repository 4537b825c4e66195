"""The search space, read off what passes and runtimes say of themselves: which recipes there are for a form."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from strop.core import registry
from strop.core.contracts import Effort, Needs, Pass, Runtime
from strop.core.model import Form
from strop.core.parameters import Value
from strop.core.recipe import Recipe, Step

_CONVERT = "convert."
_FEW = 2


@dataclass(frozen=True)
class Space:
    """What may be tried.

    Attributes:
        form: The source's.
        effort: How hard to try.
        known: What names in search ranges stand for: ``cores``, ``batch`` (0 where several are asked for, so that none
            is fixed), ``first_batch``, the size that decides, and ``safe_weight_bits``, the most bits of weights whose
            sums with codes of 8 bits never saturate on this machine.
        runtimes: Names of the only runtimes to consider; empty for all.
    """

    form: Form
    effort: Effort
    known: Mapping[str, Value]
    runtimes: tuple[str, ...] = ()

    def engines(self, form: Form) -> list[type[Runtime]]:
        """Return the installed runtimes that run `form` and may be chosen."""
        return [
            runtime
            for runtime in registry.runtimes
            if form in runtime.takes
            and not runtime.is_for_comparison
            and not runtime.missing()
            and (not self.runtimes or runtime.name in self.runtimes)
        ]

    def settings(self, runtime: type[Runtime]) -> list[dict[str, Value]]:
        """Return a runtime's settings worth trying: all combinations, those with all cores first."""
        found = runtime.variants(self.known, Effort.THOROUGH)
        if not _covers_defaults(runtime, self.known):
            found = found[1:] or found
        everything = (self.known["cores"], 0)  # to engines 0 means as many as there are
        return sorted(
            found,
            key=lambda s: s.get("threads", runtime.defaults().get("threads")) not in everything,
        )

    def reach(self) -> dict[str, str]:
        """Return, for each runtime by its title, the conversions that lead to it, or why it can't be reached."""
        ways, found = self._ways(), {}
        for runtime in registry.runtimes:
            missing = runtime.missing()
            fitting = [steps for form, steps in ways.items() if form in runtime.takes]
            if missing:
                found[runtime.title] = f"not installed: {missing.install}"
            elif fitting:
                shortest = min(fitting, key=len)
                found[runtime.title] = " > ".join(step.name for step in shortest) or "as it is"
            else:
                found[runtime.title] = "no conversion leads there from this form"
        return found

    def float_routes(self) -> list[Recipe]:
        """Return recipes of conversions alone: to each form by the shortest way, in each engine.

        Engines that need TensorFlow come last: they are seldom the fastest, and how far behind they are tells
        whether their other settings, XLA's compiling among them, are worth the time. Other numbers of threads take
        them another process, ten seconds to start, and wait until one is among the best.
        """
        found = [
            (runtime, Recipe(steps, runtime.name, settings))
            for form, steps in self._ways().items()
            for runtime in self._engines_at(form, steps)
            for settings in self.settings(runtime)
            if not (runtime.loads_tensorflow and "threads" in settings)
        ]
        return [recipe for _, recipe in sorted(found, key=lambda pair: pair[0].loads_tensorflow)]

    def alternatives(self) -> list[Recipe]:
        """Return the float routes with a conversion's other settings, in the engines' first settings."""
        recipes = []
        for form, steps in self._ways().items():
            for position, step in enumerate(steps):
                kind = registry.passes.get(step.name)
                for settings in kind.variants(self.known, Effort.STANDARD)[1:]:
                    changed = Step(step.name, {**step.settings, **settings})
                    if changed != step:
                        others = (*steps[:position], changed, *steps[position + 1 :])
                        recipes += self._in_engines(form, others)
        return recipes

    def detours(self) -> list[Recipe]:
        """Return the float routes that lead to a form by another form than the shortest way does.

        Importers differ: OpenVINO runs a recurrent network that came by ONNX faster than one that came from
        TensorFlow's graph.
        """
        ways, recipes = self._ways(), []
        for form, steps in ways.items():
            for kind in self._conversions_from(form):
                longer = (*steps, Step(kind.name, self._first(kind)))
                is_shortest = longer in ways.values()
                if kind.gives and not is_shortest and kind.gives not in self._passed(steps):
                    recipes += self._in_engines(kind.gives, longer)
        return recipes

    def repaired(self, recipe: Recipe) -> Recipe | None:
        """Return a recipe that missed the limit with accuracy repair on; None where its last pass has none."""
        if (
            not recipe.steps
            or "repair" not in registry.passes.get(recipe.steps[-1].name).parameters()
        ):
            return None
        last = recipe.steps[-1]
        if last.settings.get("repair"):
            return None
        step = Step(last.name, {**last.settings, "repair": True})
        return Recipe((*recipe.steps[:-1], step), recipe.runtime, recipe.settings)

    def micro_batches(self, recipe: Recipe) -> list[Recipe]:
        """Return `recipe` with its batch cut into parts for threads of their own, where the engine can and there is one.

        Of two sizes: each thread's equal share, and two samples, which stay in the cache and cost half the calls of
        one; a thorough search tries all powers of two between. Conversions that fix the batch fix the part.
        """
        kind, batch = registry.runtimes.get(recipe.runtime), self.known["first_batch"]
        cores = self.known["cores"]
        if "micro_batch" not in kind.parameters() or not isinstance(batch, int):
            return []
        share = math.ceil(batch / cores) if isinstance(cores, int) else batch
        between = (
            [2**n for n in range(batch.bit_length())] if self.effort is Effort.THOROUGH else []
        )
        sizes = [size for size in dict.fromkeys((share, _FEW, *between)) if size < batch]
        return [
            Recipe(
                tuple(_with_batch(step, batch, size) for step in recipe.steps),
                recipe.runtime,
                kind.from_settings(
                    {**recipe.settings, "threads": cores, "micro_batch": size}
                ).changed(),
            )
            for size in sizes
        ]

    def plain(self, recipe: Recipe) -> Recipe:
        """Return `recipe` in its engine's first settings, its batch whole."""
        kind, batch = registry.runtimes.get(recipe.runtime), self.known["first_batch"]
        size = recipe.settings.get("micro_batch")
        steps = tuple(_with_batch(step, size, batch) if size else step for step in recipe.steps)
        return Recipe(steps, recipe.runtime, kind.from_settings(self.settings(kind)[0]).changed())

    def fallbacks(self, steps: tuple[Step, ...]) -> list[tuple[Step, ...]]:
        """Return `steps` with other settings for its conversions, to try where one refused."""
        found = []
        for position, step in enumerate(steps):
            for settings in registry.passes.get(step.name).fallbacks:
                filled = {k: self._fill(v) for k, v in settings.items()}
                if {**step.settings, **filled} != dict(step.settings):
                    changed = Step(step.name, {**step.settings, **filled})
                    found.append((*steps[:position], changed, *steps[position + 1 :]))
        return found

    def techniques(self, ways: Mapping[Form, tuple[Step, ...]]) -> list[Recipe]:
        """Return each route with each technique on top, in the engines' first settings.

        Args:
            ways: The steps that lead to each form (those that worked).
        """
        recipes = []
        for form, steps in ways.items():
            for kind in self._techniques_for(form):
                gives = kind.gives or form
                for settings in kind.variants(self.known, self.effort):
                    step = Step(kind.name, {**self._first(kind), **settings})
                    recipes += self._in_engines(gives, (*steps, step))
        return list(dict.fromkeys(recipes))

    def carried_on(self, chain: tuple[Step, ...], ends: Sequence[Recipe]) -> list[Recipe]:
        """Return the recipes that carry `chain` on: to engines' own forms where it left the source's, else as `ends` do.

        Args:
            chain: Passes that the source begins with.
            ends: Recipes of the source, such as were best without the chain.
        """
        form = self.form
        for step in chain:
            form = registry.passes.get(step.name).gives or form
        if form is self.form:
            return [Recipe((*chain, *end.steps), end.runtime, end.settings) for end in ends]
        chosen = {end.runtime: end.settings for end in reversed(ends)}
        onward = replace(self, form=form)
        return [
            Recipe((*chain, *steps), recipe.runtime, chosen.get(recipe.runtime, recipe.settings))
            for reached, steps in onward._ways().items()
            for recipe in onward._in_engines(reached, steps)
            if steps and not registry.runtimes.get(recipe.runtime).loads_tensorflow
        ]

    def _techniques_for(self, form: Form) -> list[type[Pass]]:
        return [
            kind
            for kind in registry.passes
            if not kind.name.startswith(_CONVERT)
            and form in kind.takes
            and kind.needs in (Needs.NOTHING, Needs.SAMPLES)
            and self.effort.reaches(kind.effort)
            and not kind.missing()
        ]

    def _in_engines(self, form: Form, steps: tuple[Step, ...]) -> list[Recipe]:
        return [
            Recipe(steps, runtime.name, self.settings(runtime)[0])
            for runtime in self._engines_at(form, steps)
        ]

    def _engines_at(self, form: Form, steps: tuple[Step, ...]) -> list[type[Runtime]]:
        """Return the engines for a form; where another conversion leads on to an engine's own form, that is taken."""
        engines = self.engines(form)
        if not steps and form is self.form:
            return engines
        home = min((len(engine.takes) for engine in engines), default=0)
        return [engine for engine in engines if len(engine.takes) == home]

    def _ways(self) -> dict[Form, tuple[Step, ...]]:
        """Return the shortest chain of conversions to each form."""
        ways: dict[Form, tuple[Step, ...]] = {self.form: ()}
        frontier = [self.form]
        while frontier:
            form = frontier.pop(0)
            for kind in self._conversions_from(form):
                if kind.gives and kind.gives not in ways:
                    ways[kind.gives] = (*ways[form], Step(kind.name, self._first(kind)))
                    frontier.append(kind.gives)
        return ways

    def _passed(self, steps: tuple[Step, ...]) -> set[Form]:
        """Return the forms that a chain of conversions goes through, both ends with them."""
        given = (registry.passes.get(step.name).gives for step in steps)
        return {self.form, *(form for form in given if form)}

    def _conversions_from(self, form: Form) -> Iterator[type[Pass]]:
        for name in registry.passes.names():
            if name.startswith(_CONVERT):
                kind = registry.passes.get(name)
                if form in kind.takes and not kind.missing():
                    yield kind

    def _first(self, kind: type[Pass]) -> dict[str, Value]:
        """Return the settings a conversion is tried with first: the batch fixed, where it can be and one is enough."""
        batch = kind.parameters().get("batch")
        fixed = bool(batch and batch.search and self.known["batch"])
        return {"batch": self.known["batch"]} if fixed else {}

    def _fill(self, value: Value) -> Value:
        return self.known.get(value, value) if isinstance(value, str) else value


def _with_batch(step: Step, batch: Value, other: Value) -> Step:
    """Return a step that fixes the batch at `other` where it fixes it at `batch`."""
    if step.settings.get("batch") != batch:
        return step
    return Step(step.name, {**step.settings, "batch": other})


def _covers_defaults(runtime: type[Runtime], known: Mapping[str, Value]) -> bool:
    """Say whether a runtime's default settings are among those it wants tried."""
    defaults = runtime.defaults()
    return all(
        defaults[key] in parameter.worth_trying(known)
        for key, parameter in runtime.parameters().items()
        if parameter.search
    )
