"""ONNX models in float16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from strop.core.contracts import (
    ONNX_RUNTIME,
    Context,
    Effort,
    Exactness,
    Pass,
    Requirement,
    Unchanged,
)
from strop.core.model import Form, Model


@final
@dataclass(frozen=True)
class Float16ONNX(Pass):
    """Compute and keep weights in half precision, inputs and outputs staying as they are.

    Half the size; on processors without float16 kernels slower, since everything is cast back and forth.

    Before:  x ── Conv(W float32) ── y
    After:   x ── Cast ── Conv(W float16) ── Cast ── y
    """

    takes = frozenset({Form.ONNX})
    requires = (
        ONNX_RUNTIME,
        Requirement("onnx", "onnx", "train"),
        Requirement("onnxconverter_common", "onnxconverter-common", "train"),
    )
    exactness = Exactness.LOSSY
    price = "values are cast to single precision and back where no kernel computes in half"
    effort = Effort.STANDARD

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the model in half precision."""
        import onnx
        from onnxconverter_common import float16

        from strop.graph.onnx_quantizing import guarded, left_in_single

        path = context.workspace / "model.onnx"
        content = onnx.load(str(model.path))
        if any(w.data_type == onnx.TensorProto.FLOAT16 for w in content.graph.initializer):
            return Unchanged("the weights are in half precision already")

        def convert() -> None:
            onnx.save(float16.convert_float_to_float16(content, keep_io_types=True), str(path))

        guarded(convert)
        left = left_in_single(path, float16.DEFAULT_OP_BLOCK_LIST)
        return model.derive(self, Form.ONNX, path, left_in_float=left)
