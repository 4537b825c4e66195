"""The contracts on one page: what a pass, a runtime and a metric promise.

Contracts are abstract, implementations final. A plug-in is one file in `passes/`, `runtimes/` or
`metrics/` with one public class; its top level imports no framework, so that the class (its forms, its
parameters, what it needs) can be read without.
"""

from __future__ import annotations

import abc
import enum
import importlib.util
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import MissingDependencyError
from strop.core.evaluation import Fidelity, Goal
from strop.core.model import Form, Model
from strop.core.parameters import Configured, Value
from strop.core.predictor import Predictor, Session
from strop.core.samples import Samples


class Effort(enum.StrEnum):
    """How hard a search tries."""

    QUICK = "quick"
    STANDARD = "standard"
    THOROUGH = "thorough"

    def reaches(self, other: Effort) -> bool:
        """Say whether what is tried from `other` on is tried at this effort."""
        order = list(Effort)
        return order.index(self) >= order.index(other)


class Needs(enum.StrEnum):
    """What a pass needs beside the model. Each includes nothing of the others."""

    NOTHING = "nothing"
    SAMPLES = "samples"
    TARGETS = "targets"
    TRAINING = "training"


class Exactness(enum.StrEnum):
    """How the function that the model computes may change. The contract tests hold a pass to it."""

    EXACT = "exact"
    ROUNDING = "rounding"
    LOSSY = "lossy"


@dataclass(frozen=True)
class Requirement:
    """A package that a plug-in imports when it works.

    Attributes:
        module: What is imported (``ai_edge_litert``).
        package: What is installed (``ai-edge-litert``).
        extra: The extra of strop that brings it (``litert``).
    """

    module: str
    package: str
    extra: str

    def is_met(self) -> bool:
        """Say whether the module is installed, without importing it."""
        return importlib.util.find_spec(self.module) is not None


TENSORFLOW = Requirement("tensorflow", "tensorflow", "tensorflow")
KERAS = Requirement("keras", "keras", "tensorflow")
LITERT = Requirement("ai_edge_litert", "ai-edge-litert", "litert")
ONNX_RUNTIME = Requirement("onnxruntime", "onnxruntime", "onnx")
OPENVINO = Requirement("openvino", "openvino", "openvino")
OPTUNA = Requirement("optuna", "optuna", "train")


@dataclass(frozen=True)
class PlugIn(Configured):
    """What passes, runtimes and metrics have in common: a name, parameters, and packages they need.

    Attributes:
        requires: The packages it imports when it works.
        effort: From which effort on a search tries it.
    """

    requires: ClassVar[tuple[Requirement, ...]] = ()
    effort: ClassVar[Effort] = Effort.QUICK

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for layer in (".passes.", ".runtimes.", ".metrics."):
            if layer in cls.__module__:
                cls.name = cls.__module__.split(layer, 1)[1]

    @classmethod
    def missing(cls) -> MissingDependencyError | None:
        """Return the error that using this plug-in would raise for a package not installed, or None."""
        for requirement in cls.requires:
            if not requirement.is_met():
                return MissingDependencyError(
                    f"'{cls.name}'",
                    requirement.package,
                    f"pip install strop[{requirement.extra}]",
                )
        return None

    @classmethod
    def variants(cls, known: Mapping[str, Value], effort: Effort) -> list[dict[str, Value]]:
        """Return the settings that a search should try, the defaults first.

        Args:
            known: What names in `Parameter.search` stand for (``cores``, ``batch``, ``first_batch``,
                ``safe_weight_bits``).
            effort: ``quick`` tries the defaults alone, ``standard`` each parameter by itself, ``thorough``
                all combinations.
        """
        defaults = cls.defaults()
        options = {
            key: p.worth_trying(known)
            for key, p in cls.parameters().items()
            if p.search and (effort is Effort.THOROUGH or not p.seldom)
        }
        if effort is Effort.QUICK:
            found: list[dict[str, Value]] = []
        elif effort is Effort.STANDARD:
            found = [{key: value} for key, values in options.items() for value in values]
        else:
            product = itertools.product(*options.values())
            found = [dict(zip(options, values, strict=True)) for values in product]
        plain: list[dict[str, Value]] = [{}]
        for settings in found:
            changed = {key: value for key, value in settings.items() if value != defaults[key]}
            if changed not in plain:
                plain.append(changed)
        return plain

    def __str__(self) -> str:
        changed = ", ".join(f"{key}={value!r}" for key, value in self.changed().items())
        return f"{self.name}({changed})" if changed else self.name


@dataclass(frozen=True)
class Unchanged:
    """What a pass answers that found nothing to do.

    Attributes:
        reason: Why, in words for the report; lower case, no full stop.
    """

    reason: str


class Context(abc.ABC):
    """What a pass is given beside the model.

    Attributes:
        seed: For every random choice.
        goal: What the study is after.
        workspace: An empty folder of the pass's own; its result goes here.
        original: The model that all passes before this one began with; what training is taught by.
        backup: A folder that outlives an interruption, for training to go on from; None where there is none.
    """

    seed: int
    goal: Goal
    workspace: Path
    original: Model
    backup: Path | None = None

    @property
    @abc.abstractmethod
    def calibration(self) -> Samples:
        """The calibrate split: inputs to find ranges with, and to rank by."""

    @property
    @abc.abstractmethod
    def training(self) -> Samples:
        """The train split with the calibrate split: all that is not for judging."""

    @abc.abstractmethod
    def evaluate(self, model: Model, *tail: Pass) -> Fidelity:
        """Return how well `model`, after the passes of `tail`, answers on the select split.

        It is judged in the runtime that the recipe ends in, or the default one of its form.
        """

    @abc.abstractmethod
    def judge(self, answer: Callable[[Samples], Sequence[NDArray[Any]]]) -> Fidelity:
        """Return how good the answers are that a function gives to the select split.

        For models that are no file yet, such as one that is being taught.

        Args:
            answer: Takes samples and returns an array an output, in the signature's order.
        """

    @abc.abstractmethod
    def progress(self, fraction: float, note: str = "") -> None:
        """Tell how far the work is (0 to 1). Raises `Cancelled` where the user has had enough."""


@dataclass(frozen=True)
class Pass(PlugIn, abc.ABC):
    """One technique: a frozen dataclass whose fields are its parameters.

    Attributes:
        takes: The forms it works on.
        gives: The form of what it returns; None for the form it was given.
        needs: What it needs beside the model.
        exactness: How the function computed may change.
        is_idempotent: Whether a second application finds nothing to do.
        never_grows: Whether a graph never has more nodes afterwards.
        computes_in_integers: Whether what it treats computes in integers afterwards.
        only_shrinks_weights: Whether what it treats computes as before, on weights that take less room: faster only
            where reading them is what takes the time.
        price: What it costs at each call, in words for where it does not pay; lower case, no full stop. Empty
            where nothing is known beforehand.
        after: Passes one of which must have come before; empty for none.
        place: Of passes that train, where in a chain of them: the smaller comes first. What changes the architecture
            (10) goes before what removes weights (30), what has them share values (40), and integers (50).
        loads_tensorflow: Whether the work imports TensorFlow (10 s, 660 MB), which decides the worker.
        fallbacks: Settings to try in turn where what follows this pass refuses what it gave (names in them
            as in `Parameter.search`).
    """

    takes: ClassVar[frozenset[Form]]
    gives: ClassVar[Form | None] = None
    needs: ClassVar[Needs] = Needs.NOTHING
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    is_idempotent: ClassVar[bool] = False
    never_grows: ClassVar[bool] = False
    computes_in_integers: ClassVar[bool] = False
    only_shrinks_weights: ClassVar[bool] = False
    price: ClassVar[str] = ""
    after: ClassVar[tuple[str, ...]] = ()
    place: ClassVar[int] = 0
    loads_tensorflow: ClassVar[bool] = False
    fallbacks: ClassVar[tuple[Mapping[str, Value], ...]] = ()

    @abc.abstractmethod
    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return another model (`model.derive(...)`), written beneath `context.workspace`.

        Deterministic for a given `context.seed`; keeps the signature; never touches `model`'s files.

        Raises:
            TrialError: If the library beneath refuses the model.
        """


@dataclass(frozen=True)
class Runtime(PlugIn, abc.ABC):
    """An engine that runs some forms; a frozen dataclass whose fields are its settings.

    Attributes:
        takes: The forms it can open.
        loads_tensorflow: Whether opening imports TensorFlow.
        title: The engine's name as its makers write it.
        distribution: The package whose version is recorded.
        is_for_comparison: Whether it is measured beside the others and never chosen.
        as_shipped: The settings at which the engine runs as it does for who tells it nothing, where they are not the
            defaults here.
    """

    takes: ClassVar[frozenset[Form]]
    loads_tensorflow: ClassVar[bool] = False
    title: ClassVar[str] = ""
    distribution: ClassVar[str] = ""
    is_for_comparison: ClassVar[bool] = False
    as_shipped: ClassVar[Mapping[str, Value]] = {}

    @classmethod
    def environment(cls) -> dict[str, str]:
        """Return the variables that the engine reads once in a process's life, at its start.

        Whoever starts a process that may open models sets them, whatever the settings will be, so they must change
        nothing by themselves.
        """
        return {}

    @abc.abstractmethod
    def session(self, model: Model) -> Session:
        """Return `model` opened by the engine.

        Raises:
            ExecutionError: If the engine can't run it.
            MissingDependencyError: If the engine is not installed.
        """

    @final
    def open(self, model: Model) -> Predictor:
        """Return `model` behind the original's signature. Raises as `session` does."""
        missing = self.missing()
        if missing:
            raise missing
        return Predictor(model, self.session(model))


@dataclass(frozen=True)
class Metric(PlugIn, abc.ABC):
    """A question about the quality of answers, asked of outputs and targets.

    Attributes:
        higher_is_better: Whether more is better.
        is_bounded: Whether it lives in [0, 1], so that a drop is absolute; relative where not.
        title: As the field writes it.
    """

    higher_is_better: ClassVar[bool] = True
    is_bounded: ClassVar[bool] = True
    title: ClassVar[str] = ""

    @classmethod
    @abc.abstractmethod
    def fits(cls, output: NDArray[Any], target: NDArray[Any]) -> bool:
        """Say whether the question makes sense for these (a few samples of each)."""

    @abc.abstractmethod
    def value(self, output: NDArray[Any], target: NDArray[Any]) -> float:
        """Return the metric over all samples.

        Args:
            output: One output of the model, samples first.
            target: Its targets, samples first.

        Raises:
            MetricError: If it can't be computed.
        """

    def per_sample(self, output: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64] | None:
        """Return one score a sample whose mean is `value`; None where it does not decompose.

        With scores, intervals are paired and exact; without, they are bootstrapped over samples.
        """
        return None

    def statistics(self, output: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64] | None:
        """Return a row of figures a sample whose sums decide `value`; None where no sums do.

        With them a bootstrap adds up rows, and does not ask the metric anew for each of its resamples.

        Returns:
            Samples × figures. How many figures there are may depend on the arguments (the classes in them).

        Raises:
            MetricError: If they can't be computed.
        """
        return None

    def value_of(self, totals: NDArray[np.float64]) -> float:
        """Return the metric of those samples whose `statistics` sum to `totals`, one sum a figure.

        Raises:
            MetricError: If they have none.
        """
        raise NotImplementedError(f"'{self.name}' gives no statistics to sum")
