"""LiteRT dynamic-range quantization: int8 weights, activations' ranges found at each call."""

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
    smallest: int = parameter(
        1024,
        low=0,
        search=(1024, 0),
        doc="layers with fewer weights stay in float: for them, finding the ranges costs more than it saves",
    )

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the quantized flatbuffer."""
        from strop.graph.litert_quantizing import layers_of, left_in_float, quantized

        if not any(is_float for _, is_float in layers_of(model.path)):
            return Unchanged("no layer has float weights")
        path = context.workspace / "model.tflite"
        binding = quantized(model, path, self._configure)
        if all(is_float for _, is_float in layers_of(path)):
            return Unchanged(f"no layer that it has a rule for has {self.smallest} weights")
        reason = "the quantizer has no rule for it"
        if self.smallest:
            reason = f"it has fewer than {self.smallest} weights, or {reason}"
        left = left_in_float(path, (), reason=reason)
        return model.derive(self, Form.LITERT, path, binding, left_in_float=left)

    def _configure(self, work: Any) -> None:
        from ai_edge_quantizer import qtyping

        weights = qtyping.TensorQuantizationConfig(
            num_bits=self.bits, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE
        )
        config = qtyping.OpQuantizationConfig(
            weight_tensor_config=weights,
            compute_precision=qtyping.ComputePrecision.INTEGER,
            explicit_dequantize=False,
            min_weight_elements=self.smallest,
        )
        work.update_quantization_recipe(".*", "*", op_config=config)
