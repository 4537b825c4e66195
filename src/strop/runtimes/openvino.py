"""OpenVINO on the CPU, with I/O bound once and one compiled model a batch size."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from strop.core.contracts import OPENVINO, Runtime
from strop.core.errors import ExecutionError
from strop.core.model import Form, Model
from strop.core.parameters import parameter
from strop.core.predictor import Session
from strop.core.slicing import MICRO_BATCH, SlicedSession, streams_of
from strop.graph.refusal import gist

# From here on copying an input costs more than telling the engine where it lies.
_LARGE = 2**18


@final
@dataclass(frozen=True)
class OpenVINO(Runtime):
    """Run models with Intel's OpenVINO; it reads ``.onnx`` and ``.tflite`` as well as its own ``.xml``."""

    takes = frozenset({Form.OPENVINO, Form.ONNX, Form.LITERT})
    requires = (OPENVINO,)
    title = "OpenVINO"
    distribution = "openvino"
    as_shipped = MappingProxyType({"hint": "default", "precision": "default"})

    threads: int = parameter(
        0, low=0, search=(1, "cores"), doc="CPU threads; 0 leaves it to the engine"
    )
    precision: str = parameter(
        "f32",
        choices=("default", "f32", "bf16", "f16"),
        search=("f32", "bf16"),
        doc="inference precision hint; 'default' is bf16 where the processor has it, for speed",
    )
    hint: str = parameter(
        "latency",
        choices=("default", "latency", "throughput"),
        doc="performance hint of the CPU plug-in; 'default' leaves hint and streams to it",
    )

    micro_batch: int = parameter(0, low=0, doc=MICRO_BATCH)

    def session(self, model: Model) -> Session:
        """Return the model opened; see `Runtime.session`."""
        first = _Session(_Compiled(model, self.properties()))
        if not self.micro_batch:
            return first
        others = [first.clone() for _ in range(streams_of(self.threads) - 1)]
        return SlicedSession([first, *others], model.binding.batch or self.micro_batch)

    def properties(self) -> dict[str, Any]:
        """Return the settings as the CPU plug-in spells them."""
        found: dict[str, Any] = {}
        if self.hint != "default":
            found["PERFORMANCE_HINT"] = self.hint.upper()
        if self.micro_batch:
            found["NUM_STREAMS"] = str(streams_of(self.threads))
        elif self.hint == "latency":
            found["NUM_STREAMS"] = "1"
        if self.threads:
            found["INFERENCE_NUM_THREADS"] = self.threads
        if self.precision != "default":
            found["INFERENCE_PRECISION_HINT"] = self.precision
        return found


@final
class _Compiled:
    """The model, read once; compiled for each shape as it comes, since fixed shapes run faster.

    Sessions of several threads share it, each with requests of its own.
    """

    def __init__(self, model: Model, properties: dict[str, Any]) -> None:
        from strop.graph.quiet import stay_offline

        stay_offline()
        import openvino

        self.model, self._properties = model, properties
        self._core = openvino.Core()
        try:
            self._read: Any = self._core.read_model(str(model.path))
        except (RuntimeError, ValueError) as error:
            raise ExecutionError(f"OpenVINO can't open the model: {gist(error)}") from None
        # Asked once: after the first reshape nothing is free any more.
        self._is_free = any(port.partial_shape.is_dynamic for port in self._read.inputs)
        self._by_shapes: dict[tuple[tuple[int, ...], ...], Any] = {}
        self._lock = threading.Lock()

    def for_shapes(self, shapes: Sequence[tuple[int, ...]]) -> Any:
        """Return the engine's compiled model for inputs of these shapes.

        Raises:
            ExecutionError: If the engine can't compile it.
        """
        key = tuple(shapes)
        with self._lock:
            if key not in self._by_shapes:
                try:
                    self._by_shapes[key] = self._compile(key)
                except (RuntimeError, ValueError) as error:
                    raise ExecutionError(
                        f"OpenVINO can't compile the model: {gist(error)}"
                    ) from None
            return self._by_shapes[key]

    def _compile(self, shapes: tuple[tuple[int, ...], ...]) -> Any:
        import openvino

        binding = self.model.binding
        if self._is_free:
            self._read.reshape(
                {
                    self._read.input(bound.index): openvino.PartialShape(list(shape))
                    for bound, shape in zip(binding.inputs, shapes, strict=True)
                }
            )
        compiled = self._core.compile_model(self._read, "CPU", self._properties)
        if any(compiled.output(b.index).partial_shape.is_dynamic for b in binding.outputs):
            raise ValueError("an output's shape depends on the input's values")
        return compiled


@dataclass
class _Bound:
    """A request, and the buffers that it is bound to.

    Attributes:
        request: The engine's.
        inputs: Its own input arrays, in the signature's order.
        tensors: The engine's tensors over them.
        outputs: Views of its output tensors, which stay valid as long as it does.
        is_lent: Of each input, whether it reads the caller's array at the moment.
    """

    request: Any
    inputs: list[NDArray[Any]]
    tensors: list[Any]
    outputs: list[NDArray[Any]]
    is_lent: list[bool]


@final
class _Session(Session):
    """One request for each shape that came, with the buffers that are bound to it."""

    def __init__(self, compiled: _Compiled) -> None:
        self._compiled: Any = compiled
        self._binding = compiled.model.binding
        self.batch_sizes = (self._binding.batch,) if self._binding.batch else None
        self._by_shapes: dict[tuple[tuple[int, ...], ...], _Bound] = {}
        self._shapes: list[tuple[int, ...]] = []
        self._bound: Any = None

    def run(self, feeds: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        if [feed.shape for feed in feeds] != self._shapes:
            self._prepare([feed.shape for feed in feeds])
        bound = self._bound
        for place, feed in enumerate(feeds):
            if feed.nbytes >= _LARGE and _can_be_lent(feed, bound.inputs[place]):
                self._lend(place, feed)
                continue
            if bound.is_lent[place]:
                self._take_back(place)
            np.copyto(bound.inputs[place], feed)
        try:
            bound.request.infer()
        except RuntimeError as error:
            raise ExecutionError(f"OpenVINO failed while running: {gist(error)}") from None
        return bound.outputs  # type: ignore[no-any-return]

    def _lend(self, place: int, feed: NDArray[Any]) -> None:
        """Let the request read the caller's array."""
        import openvino

        tensor = openvino.Tensor(feed, shared_memory=True)
        self._bound.request.set_input_tensor(self._binding.inputs[place].index, tensor)
        self._bound.is_lent[place] = True

    def _take_back(self, place: int) -> None:
        """Let the request read its own array again."""
        index = self._binding.inputs[place].index
        self._bound.request.set_input_tensor(index, self._bound.tensors[place])
        self._bound.is_lent[place] = False

    def _prepare(self, shapes: list[tuple[int, ...]]) -> None:
        key = tuple(shapes)
        if key not in self._by_shapes:
            compiled = self._compiled.for_shapes(shapes)
            try:
                self._by_shapes[key] = self._bind(compiled, shapes)
            except (RuntimeError, ValueError) as error:
                raise ExecutionError(f"OpenVINO can't run the model: {gist(error)}") from None
        self._bound = self._by_shapes[key]
        self._shapes = shapes

    def _bind(self, compiled: Any, shapes: list[tuple[int, ...]]) -> _Bound:
        import openvino

        request = compiled.create_infer_request()
        given = zip(self._binding.inputs, shapes, strict=True)
        inputs = [np.zeros(shape, bound.dtype) for bound, shape in given]
        tensors = [openvino.Tensor(array, shared_memory=True) for array in inputs]
        for bound, tensor in zip(self._binding.inputs, tensors, strict=True):
            request.set_input_tensor(bound.index, tensor)
        request.infer()
        outputs = [request.get_output_tensor(b.index).data for b in self._binding.outputs]
        return _Bound(request, inputs, tensors, outputs, [False] * len(inputs))

    def clone(self) -> Session:
        return _Session(self._compiled)

    def reset(self) -> None:
        for bound in self._by_shapes.values():
            bound.request.reset_state()

    def close(self) -> None:
        self._by_shapes, self._shapes = {}, []
        self._bound = self._compiled = None


def _can_be_lent(feed: NDArray[Any], own: NDArray[Any]) -> bool:
    """Say whether the engine can read a caller's array as it lies in memory."""
    return feed.dtype == own.dtype and feed.flags.c_contiguous and feed.flags.writeable
