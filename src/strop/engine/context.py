"""What the engine gives a pass: samples, a workspace, and a way to ask how a model answers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from strop.core import registry
from strop.core.contracts import Context, Pass, Runtime, Unchanged
from strop.core.errors import ExecutionError
from strop.core.evaluation import Fidelity, Goal
from strop.core.model import Form, Model
from strop.core.parameters import Value
from strop.core.predictor import Predictor
from strop.core.recipe import Recipe
from strop.core.samples import Samples, Splits
from strop.engine.fidelity import Outputs, Question, choose_metrics, judge, predict_all


@dataclass(frozen=True)
class Floor:
    """What the original differs from itself by: all zero, but for dropout left on, random operations, or state.

    Attributes:
        drop: In the study's own question: the metrics where there are targets, else the agreement.
        relative_error: Of a few answers at a time, the worst output and the worst few; see
            `strop.engine.tasks.check_answers`.
    """

    drop: float = 0.0
    relative_error: float = 0.0


@dataclass(frozen=True)
class Bench:
    """What a study holds its candidates to; small, and sent to every worker.

    Attributes:
        splits: The folder of the four splits.
        reference: The folder of the original's own answers to them.
        goal: What the study is after.
        seed: For every random choice.
        floor: What the original differs from itself by.
        judged: Most samples to judge a candidate on before the final; None for all.
    """

    splits: Path
    reference: Path
    goal: Goal
    seed: int = 0
    floor: Floor = field(default_factory=Floor)
    judged: int | None = None

    def samples(self) -> Splits:
        """Return the splits, mapped."""
        return Splits.load(self.splits)

    def answers(self, split: str, most: int | None = None) -> list[NDArray[np.generic]]:
        """Return the original's answers to a split, in the signature's order."""
        with np.load(self.reference / f"{split}.npz") as stored:
            return [stored[f"output_{i}"][:most] for i in range(len(stored.files))]

    def questions(self, model: Model) -> dict[str, Question]:
        """Return the metric to judge each output of `model` by; none without targets."""
        answers = self.answers("select")
        return choose_metrics(
            self.goal.metric, answers, self.samples().select.targets, model.signature
        )

    def judge(
        self,
        model: Model,
        runtime: Runtime,
        split: str = "select",
        most: int | None = None,
    ) -> Fidelity:
        """Return how well `model` answers in `runtime` on the first `most` samples of a split."""
        with runtime.open(model) as predictor:
            return self.judge_opened(model, predictor, split, most)

    def judge_opened(
        self, model: Model, predictor: Predictor, split: str = "select", most: int | None = None
    ) -> Fidelity:
        """Return how well `model`, opened as `predictor`, answers; see `judge`."""
        samples: Samples = getattr(self.samples(), split)
        samples = samples.head(most) if most else samples
        return self.judge_answers(model, predict_all(predictor, samples), samples, split)

    def judge_answers(
        self, model: Model, outputs: Outputs, samples: Samples, split: str = "select"
    ) -> Fidelity:
        """Return how good `outputs` are, which `model` or one of its signature answered to `samples` of a split."""
        return judge(
            self.answers(split, len(samples)),
            outputs,
            samples.targets,
            signature=model.signature,
            questions=self.questions(model),
            split=split,
            confidence=self.goal.confidence or 0.95,
            seed=self.seed,
            floor=self.floor.drop,
        )


def home_runtime(form: Form) -> type[Runtime]:
    """Return the runtime that models of `form` run in by default: the one that is made for it most.

    Raises:
        ExecutionError: If none that runs it is installed.
    """
    fitting = [
        runtime
        for runtime in registry.runtimes
        if form in runtime.takes and not runtime.is_for_comparison and not runtime.missing()
    ]
    if not fitting:
        raise ExecutionError(f"no engine that runs {form} models is installed")
    return min(fitting, key=lambda runtime: len(runtime.takes))


def baseline_recipe(form: Form) -> Recipe:
    """Return how a source of `form` is run by its owner today: as it is, the engine told nothing."""
    runtime = home_runtime(form)
    return Recipe((), runtime.name, dict(runtime.as_shipped))


@final
@dataclass
class EngineContext(Context):
    """The engine's own context; see `strop.core.contracts.Context`."""

    bench: Bench
    workspace: Path
    original: Model
    tail: tuple[Pass, ...] = ()
    runtime: str | None = None
    settings: Mapping[str, Value] = field(default_factory=dict)
    report: Callable[[float, str], None] = lambda fraction, note: None
    backup: Path | None = None

    def __post_init__(self) -> None:
        self.seed = self.bench.seed
        self.goal = self.bench.goal
        self._splits = self.bench.samples()

    @property
    def calibration(self) -> Samples:  # noqa: D102 - inherited
        return self._splits.calibrate

    @property
    def training(self) -> Samples:  # noqa: D102 - inherited
        return self._splits.train.joined(self._splits.calibrate)

    def evaluate(self, model: Model, *tail: Pass) -> Fidelity:  # noqa: D102 - inherited
        for step in tail:
            folder = Path(tempfile.mkdtemp(prefix="tail-", dir=self.workspace))
            inner = EngineContext(self.bench, folder, self.original)
            outcome = step.apply(model, inner)
            model = model if isinstance(outcome, Unchanged) else outcome
        named = registry.runtimes.get(self.runtime) if self.runtime else None
        if named and model.form in named.takes:
            runtime: Runtime = named.from_settings(self.settings)
        else:
            runtime = home_runtime(model.form)()
        return self.bench.judge(model, runtime, most=self.bench.judged)

    def judge(self, answer: Callable[[Samples], Sequence[NDArray[Any]]]) -> Fidelity:  # noqa: D102 - inherited
        samples = self._splits.select
        samples = samples.head(self.bench.judged) if self.bench.judged else samples
        return self.bench.judge_answers(self.original, answer(samples), samples)

    def progress(self, fraction: float, note: str = "") -> None:  # noqa: D102 - inherited
        self.report(fraction, note)
