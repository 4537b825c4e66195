"""LiteRT weight-only quantization: weights as integers, arithmetic in float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from strop.core.contracts import (
    LITERT,
    Context,
    Effort,
    Exactness,
    Pass,
    Requirement,
    Unchanged,
)
from strop.core.model import Form, Model
from strop.core.parameters import parameter


@final
@dataclass(frozen=True)
class QuantizeWeightsLiteRT(Pass):
    """Keep weights as integers and unpack them to float before they are used: smaller, seldom faster.

    Before:  x ── Conv2D(W float32) ── y
    After:   x ── Conv2D(Dequantize(W int8 or int4 a channel)) ── y
    """

    takes = frozenset({Form.LITERT})
    requires = (LITERT, Requirement("ai_edge_quantizer", "ai-edge-quantizer", "train"))
    exactness = Exactness.LOSSY
    only_shrinks_weights = True
    price = "the weights are unpacked to float before use: smaller, not faster"
    effort = Effort.STANDARD

    bits: int = parameter(8, choices=(4, 8), search=(8, 4), doc="width of a weight")

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the quantized flatbuffer."""
        from strop.graph.litert_quantizing import layers_of, left_in_float, quantized

        if not any(is_float for _, is_float in layers_of(model.path)):
            return Unchanged("no layer has float weights")
        path = context.workspace / "model.tflite"
        binding = quantized(
            model, path, lambda work: work.add_weight_only_config(".*", "*", self.bits)
        )
        return model.derive(
            self, Form.LITERT, path, binding, left_in_float=left_in_float(path, ())
        )
