"""Real conversions of real models, compared with Keras in the engines themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from strop.core import registry
from strop.core.contracts import Context, Pass, Unchanged
from strop.core.evaluation import Fidelity, Goal
from strop.core.model import Model
from strop.core.samples import Samples
from strop.core.signature import Signature
from strop.engine.fidelity import choose_metrics, judge
from strop.graph.keras_files import opened
from strop.graph.keras_models import by_name
from strop.graph.quiet import quiet
from strop.graph.reading import read
from strop.train.lessons import answers_of

# A thousand roundings to float32, all the same way, of values as large as the largest output: more than the longest
# chain of operations in these models times the square root of its longest sum can come to by chance.
ROUNDING = 1000 * 2.0**-24


@dataclass
class PlainContext(Context):
    """What a pass that looks at nothing needs."""

    workspace: Path
    seed: int = 0
    goal: Goal = None

    @property
    def calibration(self) -> Samples:
        raise NotImplementedError

    @property
    def training(self) -> Samples:
        raise NotImplementedError

    def evaluate(self, model: Model, *tail: Pass) -> Fidelity:
        raise NotImplementedError

    def judge(self, answer: object) -> Fidelity:
        raise NotImplementedError

    def progress(self, fraction: float, note: str = "") -> None:
        pass


@dataclass
class Teaching(PlainContext):
    """A context with something to learn from, that judges by the same samples."""

    original: Model = None
    samples: Samples = None
    goal: Goal = field(default_factory=Goal)
    backup: Path | None = None

    @property
    def training(self) -> Samples:
        assert self.samples is not None, "nothing is to be learnt"
        return self.samples

    def judge(self, answer: Any) -> Fidelity:
        signature, targets = self.original.signature, self.samples.targets
        with quiet():
            wanted = answers_of(opened(self.original), self.samples, signature)
        questions = choose_metrics(None, wanted, targets, signature)
        return judge(
            wanted, answer(self.samples), targets,
            signature=signature, questions=questions, split="select",
        )  # fmt: skip


class Workshop:
    """Models on disk, passes applied to them, and their answers."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0

    def new(self) -> Path:
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        return folder

    def keras(self, model: Any) -> Model:
        """Return an in-memory model as its file is read."""
        folder = self.new()
        model.save(folder / "source.keras")
        return read(folder / "source.keras", self.new())

    def apply(self, model: Model, *steps: Pass) -> Model:
        for step in steps:
            done = step.apply(model, PlainContext(self.new()))
            assert not isinstance(done, Unchanged), done.reason
            model = done
        return model

    def inputs(self, signature: Signature, batch: int, free: int = 7) -> list[NDArray[Any]]:
        rng = np.random.default_rng(1)

        def one(spec: Any) -> NDArray[Any]:
            shape = [batch, *(free if n is None else n for n in spec.shape[1:])]
            if spec.dtype.startswith("int"):
                return rng.integers(1, 50, shape).astype(spec.dtype)
            return rng.normal(size=shape).astype(spec.dtype)

        return [one(spec) for spec in signature.inputs]

    def run(self, model: Model, runtime: str, inputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
        with registry.runtimes.get(runtime)().open(model) as predictor:
            return predictor.run(inputs)

    def assert_answers_alike(
        self, source: Model, made: Model, runtime: str, *, batch: int = 3, free: int = 7
    ) -> None:
        """Hold `made` in `runtime` to what Keras itself answers for `source`."""
        inputs = self.inputs(source.signature, batch, free)
        wanted = by_name(opened(source), inputs, source.signature)
        for before, after in zip(wanted, self.run(made, runtime, inputs), strict=True):
            before = np.asarray(before)
            assert np.abs(before).max() > 1e-3, "an output near zero shows nothing"
            np.testing.assert_allclose(after, before, atol=ROUNDING * np.abs(before).max(), rtol=0)


@pytest.fixture
def workshop(tmp_path):
    with quiet():
        yield Workshop(tmp_path)
