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


@final
class _Session(Session):
    """One request for each shape that came, with the buffers that are bound to it."""

    def __init__(self, compiled: _Compiled) -> None:
        self._compiled: Any = compiled
        self._binding = compiled.model.binding
        self.batch_sizes = (self._binding.batch,) if self._binding.batch else None
        self._bound: dict[tuple[tuple[int, ...], ...], tuple[Any, list[Any], list[Any]]] = {}
        self._shapes: list[tuple[int, ...]] = []

    def run(self, feeds: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        if [feed.shape for feed in feeds] != self._shapes:
            self._prepare([feed.shape for feed in feeds])
        for array, feed in zip(self._inputs, feeds, strict=True):
            np.copyto(array, feed)
        try:
            self._request.infer()
        except RuntimeError as error:
            raise ExecutionError(f"OpenVINO failed while running: {gist(error)}") from None
        return self._outputs

    def _prepare(self, shapes: list[tuple[int, ...]]) -> None:
        key = tuple(shapes)
        if key not in self._bound:
            compiled = self._compiled.for_shapes(shapes)
            try:
                self._bound[key] = self._bind(compiled, shapes)
            except (RuntimeError, ValueError) as error:
                raise ExecutionError(f"OpenVINO can't run the model: {gist(error)}") from None
        self._request, self._inputs, self._outputs = self._bound[key]
        self._shapes = shapes

    def _bind(
        self, compiled: Any, shapes: list[tuple[int, ...]]
    ) -> tuple[Any, list[Any], list[Any]]:
        import openvino

        request = compiled.create_infer_request()
        inputs = []
        for bound, shape in zip(self._binding.inputs, shapes, strict=True):
            array = np.zeros(shape, bound.dtype)
            request.set_input_tensor(bound.index, openvino.Tensor(array, shared_memory=True))
            inputs.append(array)
        request.infer()
        # Views of the request's own output tensors stay valid as long as the request does.
        outputs = [request.get_output_tensor(b.index).data for b in self._binding.outputs]
        return request, inputs, outputs

    def clone(self) -> Session:
        return _Session(self._compiled)

    def reset(self) -> None:
        for request, _, _ in self._bound.values():
            request.reset_state()

    def close(self) -> None:
        self._bound, self._shapes = {}, []
        self._request, self._inputs, self._outputs, self._compiled = None, [], [], None
