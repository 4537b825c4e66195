"""OpenVINO on the CPU, with I/O bound once and one compiled model a batch size."""

from __future__ import annotations

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

    def session(self, model: Model) -> Session:
        """Return the model opened; see `Runtime.session`."""
        return _Session(model, self)

    def properties(self) -> dict[str, Any]:
        """Return the settings as the CPU plug-in spells them."""
        found: dict[str, Any] = {}
        if self.hint != "default":
            found["PERFORMANCE_HINT"] = self.hint.upper()
        if self.hint == "latency":
            found["NUM_STREAMS"] = "1"
        if self.threads:
            found["INFERENCE_NUM_THREADS"] = self.threads
        if self.precision != "default":
            found["INFERENCE_PRECISION_HINT"] = self.precision
        return found


@final
class _Session(Session):
    """The model, read once; compiled for each shape as it comes, since fixed shapes run faster."""

    def __init__(self, model: Model, runtime: OpenVINO) -> None:
        from strop.graph.quiet import stay_offline

        stay_offline()
        import openvino

        self._model, self._runtime = model, runtime
        self._core = openvino.Core()
        try:
            self._read: Any = self._core.read_model(str(model.path))
        except (RuntimeError, ValueError) as error:
            raise ExecutionError(f"OpenVINO can't open the model: {gist(error)}") from None
        self.batch_sizes = (model.binding.batch,) if model.binding.batch else None
        # Asked once: after the first reshape nothing is free any more.
        self._is_free = any(port.partial_shape.is_dynamic for port in self._read.inputs)
        self._bound: dict[tuple[tuple[int, ...], ...], tuple[Any, list[Any], list[Any]]] = {}
        self._shapes: list[tuple[int, ...]] = []

    def run(self, feeds: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        if [feed.shape for feed in feeds] != self._shapes:
            self._prepare(feeds)
        for array, feed in zip(self._inputs, feeds, strict=True):
            np.copyto(array, feed)
        try:
            self._request.infer()
        except RuntimeError as error:
            raise ExecutionError(f"OpenVINO failed while running: {gist(error)}") from None
        return self._outputs

    def _prepare(self, feeds: Sequence[NDArray[Any]]) -> None:
        shapes = [feed.shape for feed in feeds]
        key = tuple(shapes)
        if key not in self._bound:
            try:
                self._bound[key] = self._compile(shapes)
            except (RuntimeError, ValueError) as error:
                raise ExecutionError(f"OpenVINO can't compile the model: {gist(error)}") from None
        self._request, self._inputs, self._outputs = self._bound[key]
        self._shapes = shapes

    def _compile(self, shapes: list[tuple[int, ...]]) -> tuple[Any, list[Any], list[Any]]:
        import openvino

        binding = self._model.binding
        ports = [self._read.input(b.index) for b in binding.inputs]
        if self._is_free:
            self._read.reshape(
                {
                    port: openvino.PartialShape(list(shape))
                    for port, shape in zip(ports, shapes, strict=True)
                }
            )
        compiled = self._core.compile_model(self._read, "CPU", self._runtime.properties())
        request = compiled.create_infer_request()
        inputs = []
        for bound, shape in zip(binding.inputs, shapes, strict=True):
            array = np.zeros(shape, bound.dtype)
            request.set_input_tensor(bound.index, openvino.Tensor(array, shared_memory=True))
            inputs.append(array)
        request.infer()
        # Views of the request's own output tensors stay valid as long as the request does.
        outputs = [request.get_output_tensor(b.index).data for b in binding.outputs]
        if any(compiled.output(b.index).partial_shape.is_dynamic for b in binding.outputs):
            raise ValueError("an output's shape depends on the input's values")
        return request, inputs, outputs

    def clone(self) -> Session:
        return _Session(self._model, self._runtime)

    def reset(self) -> None:
        for request, _, _ in self._bound.values():
            request.reset_state()

    def close(self) -> None:
        self._bound, self._shapes = {}, []
        self._request, self._inputs, self._outputs, self._read = None, [], [], None
