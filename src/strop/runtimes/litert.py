"""LiteRT (TensorFlow Lite) with the XNNPACK delegate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from strop.core.contracts import LITERT, Runtime, Session
from strop.core.errors import ExecutionError
from strop.core.model import Form, Model
from strop.core.parameters import parameter


@final
@dataclass(frozen=True)
class LiteRT(Runtime):
    """Run ``.tflite`` models with Google's LiteRT; XNNPACK takes every operation that it can."""

    takes = frozenset({Form.LITERT})
    requires = (LITERT,)
    title = "LiteRT"
    distribution = "ai-edge-litert"

    threads: int = parameter(1, low=1, search=(1, "cores"), doc="CPU threads")

    def session(self, model: Model) -> Session:
        """Return the model opened; see `Runtime.session`."""
        return _Session(model, self.threads)


@final
class _Session(Session):
    """One interpreter; buffers are views of its own memory, so nothing is copied twice."""

    def __init__(self, model: Model, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._model, self._threads = model, threads
        try:
            self._interpreter: Any = Interpreter(model_path=str(model.path), num_threads=threads)
        except (ValueError, RuntimeError) as error:
            raise ExecutionError(f"LiteRT can't open the model: {_gist(error)}") from None
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        self.batch_sizes = (model.binding.batch,) if model.binding.batch else None
        self._shapes: list[tuple[int, ...]] = []
        self._views_in: list[Any] = []
        self._views_out: list[Any] = []

    def run(self, feeds: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        if [feed.shape for feed in feeds] != self._shapes:
            self._prepare([feed.shape for feed in feeds])
        try:
            for view, feed in zip(self._views_in, feeds, strict=True):
                np.copyto(view(), feed)
            # The wrapper's own `invoke` looks for stray views at each call; ours live inside this method.
            self._interpreter._interpreter.Invoke()
        except (ValueError, RuntimeError) as error:
            raise ExecutionError(
                f"LiteRT failed while running the model: {_gist(error)}"
            ) from None
        return [view() for view in self._views_out]

    def _prepare(self, shapes: list[tuple[int, ...]]) -> None:
        self._views_in, self._views_out = [], []
        bindings = self._model.binding
        try:
            for bound, shape in zip(bindings.inputs, shapes, strict=True):
                details = self._inputs[bound.index]
                if tuple(details["shape"]) != shape:
                    self._interpreter.resize_tensor_input(details["index"], shape)
            self._interpreter.allocate_tensors()
            # Outputs of unknown size exist only after a first run.
            for bound, shape in zip(bindings.inputs, shapes, strict=True):
                self._interpreter.set_tensor(
                    self._inputs[bound.index]["index"], np.zeros(shape, bound.dtype)
                )
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise ExecutionError(f"LiteRT can't prepare the model: {_gist(error)}") from None
        tensor = self._interpreter.tensor
        self._views_in = [tensor(self._inputs[b.index]["index"]) for b in bindings.inputs]
        self._views_out = [tensor(self._outputs[b.index]["index"]) for b in bindings.outputs]
        self._interpreter.reset_all_variables()
        self._shapes = shapes
        # Details change with a resize, and the next resize is compared with them.
        self._inputs = self._interpreter.get_input_details()

    def clone(self) -> Session:
        return _Session(self._model, self._threads)

    def reset(self) -> None:
        self._interpreter.reset_all_variables()

    def close(self) -> None:
        self._views_in, self._views_out, self._shapes = [], [], []
        self._interpreter = None


def _gist(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
