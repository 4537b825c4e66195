"""LiteRT weights in float16."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from strop.core.contracts import (
    LITERT,
    Context,
    Exactness,
    Pass,
    Requirement,
    Unchanged,
)
from strop.core.model import Form, Model


@final
@dataclass(frozen=True)
class Float16LiteRT(Pass):
    """Keep weights in half precision; they are unpacked to float32 when the model is opened.

    Before:  x ── Conv2D(W float32) ── y
    After:   x ── Conv2D(Dequantize(W float16)) ── y
    """

    takes = frozenset({Form.LITERT})
    requires = (LITERT, Requirement("ai_edge_quantizer", "ai-edge-quantizer", "train"))
    exactness = Exactness.LOSSY
    only_shrinks_weights = True
    price = "the weights are unpacked to float before use: smaller, not faster"

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the flatbuffer with half-precision weights."""
        from strop.graph.litert_quantizing import layers_of, left_in_float, quantized

        if not any(is_float for _, is_float in layers_of(model.path)):
            return Unchanged("no layer has float weights")
        path = context.workspace / "model.tflite"
        binding = quantized(model, path, _float16)
        return model.derive(
            self, Form.LITERT, path, binding, left_in_float=left_in_float(path, ())
        )


def _float16(work: Any) -> None:
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    weights = qtyping.TensorQuantizationConfig(
        num_bits=16, symmetric=True, dtype=qtyping.TensorDataType.FLOAT
    )
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights,
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    for name in (
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "FULLY_CONNECTED",
        "CONV_2D_TRANSPOSE",
        "EMBEDDING_LOOKUP",
    ):
        operation = getattr(qtyping.TFLOperationName, name, None)
        if operation is not None:
            work.update_quantization_recipe(".*", operation, config, AlgorithmName.FLOAT_CASTING)
