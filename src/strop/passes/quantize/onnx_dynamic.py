"""ONNX Runtime dynamic quantization: int8 weights, activations' ranges found at each call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from strop.core.contracts import (
    ONNX_RUNTIME,
    Context,
    Exactness,
    Pass,
    Requirement,
    Unchanged,
)
from strop.core.model import Form, Model

_SLOWER = "convolutions are left alone: ONNX Runtime's dynamic integer ones are slower than float"


@final
@dataclass(frozen=True)
class QuantizeDynamicONNX(Pass):
    """Keep weights of matrix products and recurrent layers as integers, and quantize activations on the fly.

    Convolutions stay in float: ONNX Runtime's dynamic integer convolution is slower than its float one.

    Before:  x ── MatMul(W float32) ── y
    After:   x ── DynamicQuantizeLinear ── MatMulInteger(W int8) ── y
    """

    takes = frozenset({Form.ONNX})
    requires = (
        ONNX_RUNTIME,
        Requirement("onnx", "onnx", "train"),
        Requirement("sympy", "sympy", "train"),
    )
    exactness = Exactness.LOSSY
    computes_in_integers = True
    price = "finding the ranges at each call costs more than integer arithmetic saves here"

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the quantized model."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        from strop.graph.onnx_quantizing import (
            guarded,
            layers_of,
            left_in_float,
            prepared,
        )

        path = context.workspace / "model.onnx"

        def quantize() -> None:
            quantize_dynamic(
                str(prepared(model, context.workspace)),
                str(path),
                op_types_to_quantize=[
                    "MatMul",
                    "Gemm",
                    "LSTM",
                    "GRU",
                    "Attention",
                    "EmbedLayerNormalization",
                ],
                per_channel=True,
                weight_type=QuantType.QInt8,
            )

        guarded(quantize)
        if all(is_float for _, is_float in layers_of(path)):
            return Unchanged("no matrix product or recurrent layer has constant weights")
        left = left_in_float(path, (), reasons=dict.fromkeys(("Conv", "ConvTranspose"), _SLOWER))
        return model.derive(self, Form.ONNX, path, left_in_float=left)
