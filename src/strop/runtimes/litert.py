"""LiteRT (TensorFlow Lite) with the XNNPACK delegate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from strop.core.contracts import LITERT, Runtime
from strop.core.errors import ExecutionError
from strop.core.model import Form, Model
from strop.core.parameters import parameter
from strop.core.predictor import Session
from strop.core.slicing import MICRO_BATCH, SlicedSession
from strop.graph.refusal import gist


@final
@dataclass(frozen=True)
class LiteRT(Runtime):
    """Run ``.tflite`` models with Google's LiteRT; XNNPACK takes every operation that it can."""

    takes = frozenset({Form.LITERT})
    requires = (LITERT,)
    title = "LiteRT"
    distribution = "ai-edge-litert"

    threads: int = parameter(1, low=1, search=(1, "cores"), doc="CPU threads")
    micro_batch: int = parameter(0, low=0, doc=MICRO_BATCH)

    def session(self, model: Model) -> Session:
        """Return the model opened; see `Runtime.session`."""
        if not self.micro_batch:
            return _Session(model, self.threads)
        each = [_Session(model, 1) for _ in range(self.threads)]
        return SlicedSession(each, model.binding.batch or self.micro_batch)


@final
class _Session(Session):
    """One interpreter; buffers are views of its own memory, so nothing is copied twice."""

    def __init__(self, model: Model, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._model, self._threads = model, threads
        try:
            self._interpreter: Any = Interpreter(model_path=str(model.path), num_threads=threads)
        except (ValueError, RuntimeError) as error:
            raise ExecutionError(f"LiteRT can't open the model: {gist(error)}") from None
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        self.batch_sizes = (model.binding.batch,) if model.binding.batch else None
        self._shapes: list[tuple[int, ...]] = []
        self._arrays_in: list[NDArray[Any]] = []
        self._arrays_out: list[NDArray[Any]] = []
        self._views_out: list[Any] = []
        self._lone: NDArray[Any] | None = None
        self._invoke: Any = None

    def run(self, feeds: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        # One input of the shape of the last call is what small networks are asked with, a million times.
        if self._lone is not None and self._lone.shape == feeds[0].shape:
            self._lone[...] = feeds[0]
        else:
            self._take(feeds)
        try:
            # The wrapper's own `invoke` refuses where views of its memory are kept; ours are let go before that
            # memory is laid out anew.
            self._invoke()
        except (ValueError, RuntimeError) as error:
            raise ExecutionError(f"LiteRT failed while running the model: {gist(error)}") from None
        return self._arrays_out or [view() for view in self._views_out]

    def _take(self, feeds: Sequence[NDArray[Any]]) -> None:
        """Copy the feeds in, where memory has been laid out for their shapes."""
        shapes = [feed.shape for feed in feeds]
        if shapes != self._shapes:
            self._prepare(shapes)
        for array, feed in zip(self._arrays_in, feeds, strict=True):
            array[...] = feed

    def _prepare(self, shapes: list[tuple[int, ...]]) -> None:
        self._let_go()
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
            raise ExecutionError(f"LiteRT can't prepare the model: {gist(error)}") from None
        self._interpreter.reset_all_variables()
        # Details change with a resize, and the next resize is compared with them.
        self._inputs = self._interpreter.get_input_details()
        tensor = self._interpreter.tensor
        self._arrays_in = [tensor(self._inputs[b.index]["index"])() for b in bindings.inputs]
        self._views_out = [tensor(self._outputs[b.index]["index"]) for b in bindings.outputs]
        # Outputs whose size depends on the input's values move from call to call; the file tells those of fixed size.
        if all((self._outputs[b.index]["shape_signature"] >= 0).all() for b in bindings.outputs):
            self._arrays_out = [view() for view in self._views_out]
        self._lone = self._arrays_in[0] if len(self._arrays_in) == 1 else None
        self._invoke = self._interpreter._interpreter.Invoke
        self._shapes = shapes

    def _let_go(self) -> None:
        """Let go of all that points into the interpreter's memory."""
        self._shapes, self._arrays_in, self._arrays_out, self._views_out = [], [], [], []
        self._invoke = self._lone = None

    def clone(self) -> Session:
        return _Session(self._model, self._threads)

    def reset(self) -> None:
        self._interpreter.reset_all_variables()

    def close(self) -> None:
        self._let_go()
        self._interpreter = None
