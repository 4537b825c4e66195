"""What strop's steps make of a network, kept as soon as it is there, and how its answers are in the engine that runs it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.compression.originals import ORIGINALS, Original
from benchmarks.compression.scale import Scale
from strop.core import registry
from strop.core.evaluation import Goal
from strop.core.model import Model
from strop.core.recipe import Step
from strop.core.samples import Samples
from strop.engine.executors.local import LocalExecutor
from strop.engine.fidelity import predict_all
from strop.engine.lanes import CONVERTING, of_running
from strop.engine.measure import zipped_size
from strop.engine.running import Declined, Runner
from strop.engine.store import Store
from strop.search.events import ignore
from strop.search.preparing import prepare
from strop.search.request import Request

_ROOT = Path(__file__).resolve().parents[2]
# A training that keeps half of what may be lost ends early: nothing may, so that each has all its epochs.
_GOAL = Goal(max_drop=0.0)

Settings = Mapping[str, Any]


def step(name: str, **settings: Any) -> Step:
    """Return a pass with settings, those that are its defaults left out.

    Raises:
        ParameterError: If there is no such setting.
    """
    return Step(name, registry.passes.get(name).from_settings(settings).changed())


@dataclass(frozen=True)
class Bench:
    """A network on which steps are carried out with one seed.

    Attributes:
        original: The network.
        scale: How much of everything.
        source: It as it was read.
        folder: Where what is made is kept.
    """

    original: Original
    scale: Scale
    source: Model
    folder: Path
    _runner: Runner

    def made(self, steps: Sequence[Step]) -> Model:
        """Return what steps make of it; what they have in common with others is made once.

        Raises:
            RuntimeError: If a pass had nothing to do.
            TrialError: If one fails.
        """
        found = self._runner.prepare(tuple(steps), progress=_tell)
        if isinstance(found, Declined):
            raise RuntimeError(f"{found.step.name} had nothing to do: {found.reason}")
        return found

    def right(self, model: Model, runtime: str) -> NDArray[np.bool_]:
        """Return which of the test samples a model classifies rightly in an engine."""
        found: NDArray[np.bool_] = self._runner.executor.call(
            of_running(runtime, {}), "benchmarks.compression.making:right_answers",
            model, runtime, self.original.name, self.scale,
        )  # fmt: skip
        return found

    def kernels(self, model: Model, runtime: str) -> dict[str, int]:
        """Return what numbers its layers compute with; see `benchmarks.compression.kernels`."""
        found: dict[str, int] = self._runner.executor.call(
            of_running(runtime, {}), "benchmarks.compression.kernels:counted", model
        )
        return found

    def zipped_original(self) -> int:
        """Return the bytes of the network zipped, without its optimizer."""
        bare = self._runner.executor.call(
            CONVERTING, "strop.graph.keras_files:saved_bare", self.source, str(self.folder / "bare.keras")
        )  # fmt: skip
        return zipped(bare)


def made_folder(original: Original, seed: int, scale: Scale) -> Path:
    """Return where all is kept that is made of a network with one seed."""
    return scale.work() / "made" / f"{original.name}-{seed}"


@contextmanager
def bench(original: Original, seed: int, scale: Scale) -> Iterator[Bench]:
    """Give a network to work on, and the processes that do it."""
    folder = made_folder(original, seed, scale)
    store = Store(folder / "study" / "store")
    asked = Request(seed=seed, goal=_GOAL)
    with LocalExecutor((str(_ROOT),)) as executor:
        source, splits, held_to, _ = prepare(
            original.model(scale), original.lessons(scale), asked, store, executor, ignore
        )
        runner = Runner(source, store, executor, held_to, splits.digest(), asked.step_seconds)
        yield Bench(original, scale, source, folder, runner)


def right_answers(model: Model, runtime: str, original: str, scale: Scale) -> NDArray[np.bool_]:
    """Return which test samples are classified rightly; the work of `Bench.right`, in a process of the engine's."""
    inputs, classes = ORIGINALS[original].tests(scale)
    (name,) = model.signature.input_names
    with registry.runtimes.get(runtime)().open(model) as predictor:
        (scores,) = predict_all(predictor, Samples({name: inputs}))
    right: NDArray[np.bool_] = scores.argmax(-1).reshape(-1) == classes
    return right


def zipped(model: Model) -> int:
    """Return the bytes of a model's files, zipped."""
    return round(zipped_size(model)["zipped_size"].value)


def _tell(share: float, note: str) -> None:
    if note and share >= 0:
        print(f"\r{share:5.0%}  {note}        ", end="", flush=True)
