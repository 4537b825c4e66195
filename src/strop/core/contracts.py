"""The contracts on one page: what a pass, a runtime, a session, a predictor and a metric promise.

Contracts are abstract, implementations final. A plug-in is one file in `passes/`, `runtimes/` or
`metrics/` with one public class; its top level imports no framework, so that the class (its forms, its
parameters, what it needs) can be read without.
"""

from __future__ import annotations

import abc
import enum
import importlib.util
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeGuard, final

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import MissingDependencyError, SamplesError, message
from strop.core.evaluation import Fidelity, Goal
from strop.core.model import Form, Model
from strop.core.parameters import Configured, Value
from strop.core.samples import Samples
from strop.core.signature import Arrays, Signature


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
            known: What names in `Parameter.search` stand for (``cores``, ``batch``, ``first_batch``).
            effort: ``quick`` tries the defaults alone, ``standard`` each parameter by itself, ``thorough``
                all combinations.
        """
        defaults = cls.defaults()
        options = {
            key: [
                known.get(value, value) if isinstance(value, str) else value for value in p.search
            ]
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
    """

    seed: int
    goal: Goal
    workspace: Path

    @property
    @abc.abstractmethod
    def calibration(self) -> Samples:
        """The calibrate split: inputs to find ranges with, and to rank by."""

    @property
    @abc.abstractmethod
    def training(self) -> Samples:
        """The train split."""

    @abc.abstractmethod
    def evaluate(self, model: Model, *tail: Pass) -> Fidelity:
        """Return how well `model`, after the passes of `tail`, answers on the select split.

        It is judged in the runtime that the recipe ends in, or the default one of its form.
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
        computes_in_integers: Whether what it treats computes in integers afterwards.
        price: What it costs at each call, in words for where it does not pay; lower case, no full stop. Empty
            where nothing is known beforehand.
        after: Passes one of which must have come before; empty for none.
        loads_tensorflow: Whether the work imports TensorFlow (10 s, 660 MB), which decides the worker.
        fallbacks: Settings to try in turn where what follows this pass refuses what it gave (names in them
            as in `Parameter.search`).
    """

    takes: ClassVar[frozenset[Form]]
    gives: ClassVar[Form | None] = None
    needs: ClassVar[Needs] = Needs.NOTHING
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    computes_in_integers: ClassVar[bool] = False
    price: ClassVar[str] = ""
    after: ClassVar[tuple[str, ...]] = ()
    loads_tensorflow: ClassVar[bool] = False
    fallbacks: ClassVar[tuple[Mapping[str, Value], ...]] = ()

    @abc.abstractmethod
    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return another model (`model.derive(...)`), written beneath `context.workspace`.

        Deterministic for a given `context.seed`; keeps the signature; never touches `model`'s files.

        Raises:
            TrialError: If the library beneath refuses the model.
        """


class Session(abc.ABC):
    """A model opened by an engine: the engine's own arrays in, its own arrays out, nothing checked.

    `Predictor` stands before it and speaks the signature. A session serves one thread at a time.
    """

    batch_sizes: tuple[int, ...] | None = None
    """The batch sizes it takes; None for any."""

    @abc.abstractmethod
    def run(self, feeds: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        """Return the outputs for `feeds`.

        Args:
            feeds: The form's arrays (after the binding's encoding), in the order of the signature's
                inputs; any memory layout.

        Returns:
            The form's arrays (before decoding), in the order of the signature's outputs. They may be
            views that the next call overwrites.

        Raises:
            ExecutionError: If the engine fails.
        """

    @abc.abstractmethod
    def clone(self) -> Session:
        """Return another session of the same model, for another thread; weights shared if it can be."""

    # Most sessions keep no state and hold nothing, so doing nothing is the right answer of these two.
    def reset(self) -> None:  # noqa: B027
        """Forget the state that calls leave behind, where the model keeps any."""

    def close(self) -> None:  # noqa: B027
        """Give back what the engine holds (threads, memory)."""


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


@final
class Predictor:
    """A model opened by a runtime: ``predictor(inputs) -> outputs``, under the original's names.

    Inputs are an array (one input), a sequence in order, or a mapping by name; outputs an array (one
    output) or a mapping by name. NumPy at the boundary, whatever runs beneath. One thread at a time;
    `clone` for more.
    """

    def __init__(self, model: Model, session: Session) -> None:
        self._session = session
        self._binding = model.binding
        self.signature: Signature = model.signature
        self.batch_sizes = session.batch_sizes
        self._model = model
        self._dtypes = [np.dtype(spec.dtype) for spec in self.signature.inputs]
        # What was found to fit is not looked at again as long as the calls stay alike.
        self._fitting: list[tuple[tuple[int, ...], np.dtype[Any]]] = []
        pairs_in = zip(model.binding.inputs, self.signature.inputs, strict=True)
        self._encoders = [None if b.is_plain(s.dtype) else b.encode for b, s in pairs_in]
        pairs_out = zip(model.binding.outputs, self.signature.outputs, strict=True)
        self._decoders = [None if b.is_plain(s.dtype) else b.decode for b, s in pairs_out]
        self._encodes = any(encode is not None for encode in self._encoders)
        self._decodes = any(decode is not None for decode in self._decoders)
        self._output_dtypes = [spec.dtype for spec in self.signature.outputs]
        self._output_names = self.signature.output_names

    def __call__(self, inputs: object, *, copy: bool = True) -> NDArray[Any] | Arrays:
        """Return the outputs for `inputs`, any number of samples; see `run_all`.

        Args:
            inputs: An array, a sequence of arrays, or a mapping by name.
            copy: Whether the outputs are the caller's own; with False they may be views that the next
                call overwrites, for those who have used them up by then.

        Raises:
            SamplesError: If names, shapes or dtypes don't fit.
            ExecutionError: If the engine fails.
        """
        outputs = self.run_all(inputs, copy=copy)
        if len(outputs) == 1:
            return outputs[0]
        return dict(zip(self._output_names, outputs, strict=True))

    def run_all(self, inputs: object, *, copy: bool = True) -> list[NDArray[Any]]:
        """Return the outputs in the signature's order, for any number of samples.

        Where the model was made for batches of one size, it is called as often as that takes; the last batch is
        filled up with its last sample.
        """
        if self.batch_sizes is None or self._is_as_before(inputs):
            return self.run(inputs, copy=copy)
        named = self.signature.arrange(inputs)
        arrays = list(named.values())
        count, size = arrays[0].shape[0] if arrays[0].ndim else 1, max(self.batch_sizes)
        if count in self.batch_sizes or not count:
            return self._answers(self._seen(arrays), copy=copy)
        self.signature.check(named)
        parts = []
        for start in range(0, count, size):
            part = [_filled(array[start : start + size], size) for array in arrays]
            found = self._answers(self._seen(part), copy=True)
            parts.append([output[: count - start] for output in found])
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def run(self, inputs: object, *, copy: bool = True) -> list[NDArray[Any]]:
        """Return the outputs of one call of the engine, in the signature's order.

        Raises:
            SamplesError: As `__call__`, and if the batch size is not one it takes.
        """
        # Every tenth of a microsecond counts here: small networks answer within some ten of them.
        if self._is_as_before(inputs):
            return self._answers([inputs], copy=copy)
        return self._answers(self._seen(list(self.signature.arrange(inputs).values())), copy=copy)

    def _answers(self, arrays: list[NDArray[Any]], *, copy: bool) -> list[NDArray[Any]]:
        if self._encodes:
            arrays = [
                array if encode is None else encode(array)
                for array, encode in zip(arrays, self._encoders, strict=True)
            ]
        results = self._session.run(arrays)
        if self._decodes:
            return self._decoded(results, copy=copy)
        if not copy:
            return list(results)
        return [results[0].copy()] if len(results) == 1 else [r.copy() for r in results]

    def _is_as_before(self, inputs: object) -> TypeGuard[NDArray[Any]]:
        """Say whether `inputs` is one array like that of the last call, so that it needs no other look."""
        return type(inputs) is np.ndarray and [(inputs.shape, inputs.dtype)] == self._fitting

    def _seen(self, arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return inputs in the engine's dtypes, looked at unless the last ones were alike."""
        kinds = [(array.shape, array.dtype) for array in arrays]
        if kinds == self._fitting:
            return arrays
        fitted = self._fitted(arrays)
        if kinds == [(array.shape, array.dtype) for array in fitted]:
            self._fitting = kinds
        return fitted

    def _decoded(self, results: Sequence[NDArray[Any]], *, copy: bool) -> list[NDArray[Any]]:
        outputs = []
        for result, decode, dtype in zip(
            results, self._decoders, self._output_dtypes, strict=True
        ):
            array = result if decode is None else decode(result, dtype)
            outputs.append(array.copy() if copy and array is result else array)
        return outputs

    def _fitted(self, arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return `arrays` cast to the signature's dtypes, or say what does not fit."""
        self.signature.check(dict(zip(self.signature.input_names, arrays, strict=True)))
        count = len(arrays[0])
        if self.batch_sizes is not None and count not in self.batch_sizes:
            raise SamplesError(
                message(
                    f"a batch of {count} was given.",
                    f"This model was made for batches of {', '.join(map(str, self.batch_sizes))}.",
                )
            )
        return [
            array.astype(dtype, copy=False)
            for array, dtype in zip(arrays, self._dtypes, strict=True)
        ]

    def clone(self) -> Predictor:
        """Return another predictor of the same model, for another thread."""
        return Predictor(self._model, self._session.clone())

    def reset(self) -> None:
        """Forget the state that calls leave behind, where the model keeps any."""
        self._session.reset()

    def close(self) -> None:
        """Give back what the engine holds. Closing twice is harmless."""
        self._session.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _filled(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Return `array` with its last sample repeated up to `size`."""
    missing = size - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


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
