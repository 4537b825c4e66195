"""LiteRT dynamic-range quantization: int8 weights, activations' ranges found at each call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from strop.core.contracts import (
    LITERT,
    Context,
    Exactness,
    Pass,
    Requirement,
    Unchanged,
)
from strop.core.model import Form, Model
from strop.core.parameters import parameter


@final
@dataclass(frozen=True)
class QuantizeDynamicLiteRT(Pass):
    """Keep weights as integers and quantize activations on the fly, so that the arithmetic is integer.

    Before:  x ── Conv2D(W float32) ── y
    After:   x ── Conv2D(W int8 a channel; x to int8 at each call) ── y
    """

    takes = frozenset({Form.LITERT})
    requires = (LITERT, Requirement("ai_edge_quantizer", "ai-edge-quantizer", "train"))
    exactness = Exactness.LOSSY
    computes_in_integers = True
    price = "finding the ranges at each call costs more than integer arithmetic saves here"

    bits: int = parameter(8, choices=(4, 8), doc="width of a weight")

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the quantized flatbuffer."""
        from strop.graph.litert_quantizing import layers_of, left_in_float, quantized

        if not any(is_float for _, is_float in layers_of(model.path)):
            return Unchanged("no layer has float weights")
        path = context.workspace / "model.tflite"
        binding = quantized(
            model, path, lambda work: work.add_dynamic_config(".*", "*", self.bits)
        )
        return model.derive(
            self, Form.LITERT, path, binding, left_in_float=left_in_float(path, ())
        )
