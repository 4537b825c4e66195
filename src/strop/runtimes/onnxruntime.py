"""ONNX Runtime on the CPU, with I/O bound once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from strop.core.contracts import ONNX_RUNTIME, Runtime
from strop.core.errors import ExecutionError
from strop.core.model import Form, Model
from strop.core.parameters import parameter
from strop.core.predictor import Session
from strop.core.slicing import MICRO_BATCH, SlicedSession, streams_of
from strop.graph.refusal import gist

_LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


@final
@dataclass(frozen=True)
class ONNXRuntime(Runtime):
    """Run ``.onnx`` models with Microsoft's ONNX Runtime."""

    takes = frozenset({Form.ONNX})
    requires = (ONNX_RUNTIME,)
    title = "ONNX Runtime"
    distribution = "onnxruntime"
    as_shipped = MappingProxyType({"fuse_skip_normalization": True})

    threads: int = parameter(
        0,
        low=0,
        search=(1, "cores"),
        doc="threads within one operation; 0 leaves it to the engine",
    )
    graph_optimization: str = parameter(
        "all",
        choices=tuple(_LEVELS),
        search=("all", "extended"),
        doc="graph-optimization level",
    )
    spin: bool = parameter(
        True,
        doc="whether threads wait for work by spinning: faster, and busy for a moment after",
    )

    fuse_skip_normalization: bool = parameter(
        False,
        doc="fuse a sum into the layer normalization behind it, for which ONNX Runtime's kernel is often slower than "
        "the two apart",
    )
    micro_batch: int = parameter(0, low=0, doc=MICRO_BATCH)

    def session(self, model: Model) -> Session:
        """Return the model opened; see `Runtime.session`."""
        if not self.micro_batch:
            return _Session(model, _opened(model, self))
        first = _Session(model, _opened(model, replace(self, threads=1)))
        others = [first.clone() for _ in range(streams_of(self.threads) - 1)]
        return SlicedSession([first, *others], model.binding.batch or self.micro_batch)

    def optimization_level(self) -> str:
        """Return the name of the graph-optimization level as ONNX Runtime spells it."""
        return _LEVELS[self.graph_optimization]

    def disabled_optimizers(self) -> list[str]:
        """Return the rewritings that ONNX Runtime shall leave out."""
        return [] if self.fuse_skip_normalization else ["SkipLayerNormFusion"]


def _opened(model: Model, runtime: ONNXRuntime) -> Any:
    """Return the engine's own session, which many threads may call at once.

    Raises:
        ExecutionError: If the engine refuses the model.
    """
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = runtime.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, runtime.optimization_level()
    )
    options.log_severity_level = 4
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "1" if runtime.spin else "0"
    )
    try:
        return onnxruntime.InferenceSession(
            str(model.path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=runtime.disabled_optimizers(),
        )
    # The engine's errors derive from nothing but Exception, and differ from release to release.
    except Exception as error:  # noqa: BLE001
        raise ExecutionError(f"ONNX Runtime can't open the model: {gist(error)}") from None


@final
class _Session(Session):
    """One inference session with an input and an output buffer bound for the shape last seen."""

    def __init__(self, model: Model, session: Any) -> None:
        self._model, self._session = model, session
        self.batch_sizes = (model.binding.batch,) if model.binding.batch else None
        self._shapes: list[tuple[int, ...]] = []
        self._values: list[Any] = []
        self._outputs: list[Any] = []
        self._binding: Any = None

    def run(self, feeds: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        if [feed.shape for feed in feeds] != self._shapes:
            self._prepare(feeds)
        try:
            for value, feed in zip(self._values, feeds, strict=True):
                value.update_inplace(np.ascontiguousarray(feed))
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # noqa: BLE001 - as above
            raise ExecutionError(f"ONNX Runtime failed while running: {gist(error)}") from None
        return self._outputs

    def _prepare(self, feeds: Sequence[NDArray[Any]]) -> None:
        from onnxruntime import OrtValue

        bound = self._model.binding
        inputs = {
            b.name: np.ascontiguousarray(f) for b, f in zip(bound.inputs, feeds, strict=True)
        }
        names = [b.name for b in bound.outputs]
        try:
            # A plain run tells the outputs' shapes, which the model alone may not know.
            results = self._session.run(names, inputs)
            binding = self._session.io_binding()
            self._values = [OrtValue.ortvalue_from_numpy(feed.copy()) for feed in inputs.values()]
            for name, value in zip(inputs, self._values, strict=True):
                binding.bind_ortvalue_input(name, value)
            self._outputs = []
            self._kept = []
            for name, result in zip(names, results, strict=True):
                value = OrtValue.ortvalue_from_numpy(np.ascontiguousarray(result))
                binding.bind_ortvalue_output(name, value)
                self._kept.append(value)
                self._outputs.append(value.numpy())
        except Exception as error:  # noqa: BLE001 - as above
            raise ExecutionError(f"ONNX Runtime failed while running: {gist(error)}") from None
        self._binding = binding
        self._shapes = [feed.shape for feed in feeds]

    def clone(self) -> Session:
        return _Session(self._model, self._session)

    def close(self) -> None:
        self._binding = self._session = None
        self._values, self._outputs, self._kept, self._shapes = [], [], [], []
