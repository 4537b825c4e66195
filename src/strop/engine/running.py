"""Running recipes: each prefix of passes carried out once, kept in the store, found again by how it was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from strop.core import digest, registry
from strop.core.contracts import Needs, Pass, Unchanged
from strop.core.errors import RecipeError, StropError, TrialError
from strop.core.model import Form, Model, digest_of
from strop.core.parameters import Value
from strop.core.recipe import Recipe, Step
from strop.engine.context import Bench
from strop.engine.executors.local import LocalExecutor
from strop.engine.lanes import of_applying
from strop.engine.machine import versions
from strop.engine.store import Store, is_full, no_room
from strop.engine.worker import Progress


@dataclass(frozen=True)
class Declined:
    """A recipe that one of its passes had nothing to do for.

    Attributes:
        step: The pass.
        reason: What it said.
    """

    step: Step
    reason: str


def mistakes(recipe: Recipe, form: Form) -> list[str]:
    """Return everything that is wrong with `recipe` for a source of `form`, before any work begins.

    Raises:
        UnknownNameError: If a pass or the runtime is not known; offers the nearest.
    """
    found: list[str] = []
    for number, step in enumerate(recipe.steps, 1):
        kind = registry.passes.get(step.name)
        found += [f"step {number}: {wrong}" for wrong in kind.mistakes(step.settings)]
        if form not in kind.takes:
            wanted = " or ".join(sorted(kind.takes))
            found.append(
                f"step {number}, '{step.name}', takes a {wanted} model, but what comes before gives {form}.\n"
                f'  Put a step between them:  pass = "convert.{sorted(kind.takes)[0]}"'
            )
        if kind.after and not {s.name for s in recipe.steps[: number - 1]} & set(kind.after):
            found.append(f"step {number}, '{step.name}', comes after {' or '.join(kind.after)}.")
        form = kind.gives or form
    runtime = registry.runtimes.get(recipe.runtime)
    found += runtime.mistakes(recipe.settings)
    if form not in runtime.takes:
        takes = ", ".join(sorted(runtime.takes))
        found.append(f"the runtime '{recipe.runtime}' runs {takes}, but the steps give {form}.")
    return found


@dataclass
class Runner:
    """Carries out the passes of recipes on one source.

    Attributes:
        source: The source.
        store: Where finished steps are kept.
        executor: Where the work is done.
        bench: What passes are given, and what conversions are checked against.
        data_digest: Of the samples: passes that look at them are kept under it.
        step_seconds: After which a pass is ended that does not train.
    """

    source: Model
    store: Store
    executor: LocalExecutor
    bench: Bench
    data_digest: str
    step_seconds: float = 600.0
    _failed: dict[str, TrialError] = field(default_factory=dict)

    def check(self, recipe: Recipe) -> None:
        """Raise one `RecipeError` with every mistake in `recipe`."""
        found = mistakes(recipe, self.source.form)
        if found:
            raise RecipeError(found)

    def key(self, steps: Sequence[Step]) -> str:
        """Return what the outcome of `steps` is kept under: how it was made, not what bytes it has."""
        made_by = [(s.name, _by_content(s.settings)) for s in steps]
        packages = {
            requirement.package
            for step in steps
            for requirement in registry.passes.get(step.name).requires
        }
        looked_at = any(registry.passes.get(s.name).needs is not Needs.NOTHING for s in steps)
        installed = versions()
        return digest.of_value(
            {
                "source": self.source.identity(),
                "steps": made_by,
                "data": self.data_digest if looked_at else None,
                "goal": self.bench.goal.to_json() if looked_at else None,
                "judged": self.bench.judged if looked_at else None,
                "seed": self.bench.seed,
                "versions": {name: installed.get(name) for name in sorted(packages | {"strop"})},
            }
        )[:32]

    def prepare(
        self,
        steps: Sequence[Step],
        *,
        runtime: str | None = None,
        settings: Mapping[str, Value] | None = None,
        progress: Progress | None = None,
    ) -> Model | Declined:
        """Return the model that `steps` make of the source.

        Args:
            steps: The passes, first to last.
            runtime: Where a pass that asks for quality should have it judged.
            settings: That runtime's settings.
            progress: Told how far a pass is.

        Raises:
            TrialError: If a pass fails. The same prefix is not tried again.
        """
        model = self.source
        for count, step in enumerate(steps, 1):
            outcome = self._one(steps[:count], model, runtime, settings or {}, progress)
            if isinstance(outcome, Unchanged):
                return Declined(step, outcome.reason)
            model = outcome
        return model

    def _one(
        self,
        steps: Sequence[Step],
        model: Model,
        runtime: str | None,
        settings: Mapping[str, Value],
        progress: Progress | None,
    ) -> Model | Unchanged:
        key = self.key(steps)
        if key in self._failed:
            raise self._failed[key]
        kept = self.store.get(key)
        if kept is not None:
            return kept
        kind: type[Pass] = registry.passes.get(steps[-1].name)
        missing = kind.missing()
        if missing:
            raise missing
        try:
            with self.store.draft() as draft, self._backup(kind, key) as backup:
                with self._room():
                    outcome = self.executor.call(
                        of_applying(kind), "strop.engine.tasks:apply_pass",
                        steps[-1], model, self.bench, str(draft), runtime, settings,
                        original=self.source, backup=backup,
                        # Training takes as long as was asked for; conversions hang.
                        timeout_seconds=None if kind.needs is Needs.TRAINING else self.step_seconds,
                        progress=progress,
                    )  # fmt: skip
                return self.store.put(key, outcome, draft)
        except TrialError as error:
            self._failed[key] = _named(steps[-1], error)
            raise self._failed[key] from None

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Tell what fails on a full disk as that; what it can go on from is left then."""
        try:
            yield
        except TrialError as error:
            if is_full(self.store.folder, error):
                raise no_room(self.store.folder, OSError(gist(error))) from None
            raise

    @contextmanager
    def _backup(self, kind: type[Pass], key: str) -> Iterator[str | None]:
        """Give a pass that trains the folder to go on from."""
        if kind.needs is not Needs.TRAINING:
            yield None
            return
        with self.store.unfinished(key) as folder:
            yield str(folder) if folder else None


def _by_content(settings: Mapping[str, Value]) -> dict[str, Value]:
    """Return settings with what is in a file for its name, under which another may lie the next time."""
    return {
        name: digest_of(Form.KERAS, Path(value)) if _is_file(value) else value
        for name, value in settings.items()
    }


def _is_file(value: Value) -> TypeGuard[str]:
    # Words without a suffix are other settings, whatever lies in the current folder.
    return isinstance(value, str) and bool(Path(value).suffix) and Path(value).is_file()


def _named(step: Step, error: TrialError) -> TrialError:
    """Return `error` saying which step it befell."""
    error.args = (f"{step.name}: {error}",)
    return error


def gist(error: StropError) -> str:
    """Return the first line of an error: what fits into a table."""
    return str(error).splitlines()[0]
