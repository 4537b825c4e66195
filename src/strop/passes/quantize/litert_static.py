"""LiteRT static quantization: int8 weights and activations (or int16), ranges found by calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from strop.core.contracts import (
    LITERT,
    Context,
    Exactness,
    Needs,
    Pass,
    Requirement,
    Unchanged,
)
from strop.core.errors import QuantizationError
from strop.core.model import Form, Model
from strop.core.parameters import parameter


@final
@dataclass(frozen=True)
class QuantizeStaticLiteRT(Pass):
    """Quantize weights and activations with ranges that calibration samples showed.

    With `repair`, layers are left in float, those that hurt most first, until the goal's limit is met.

    Before:  x ── Conv2D(W float32) ── y
    After:   x ── Quantize ── Conv2D(W int8 a channel, x and y int8) ── Dequantize ── y

    References:
        Jacob et al., *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference*, CVPR 2018 (arXiv:1712.05877).
    """

    takes = frozenset({Form.LITERT})
    needs = Needs.SAMPLES
    requires = (LITERT, Requirement("ai_edge_quantizer", "ai-edge-quantizer", "train"))
    exactness = Exactness.LOSSY
    computes_in_integers = True

    activation_bits: int = parameter(
        8,
        choices=(8, 16),
        search=(8, 16),
        seldom=True,
        doc="width of an activation; for 16 few processors have fast kernels",
    )
    io: str = parameter(
        "float",
        choices=("float", "integer"),
        search=("float", "integer"),
        doc="dtype of inputs and outputs; integers save the conversions where the caller has them",
    )
    samples: int = parameter(100, low=1, doc="calibration samples")
    keep_float: tuple[str, ...] = parameter(
        (), doc="layers to leave in float, by their output tensors"
    )
    repair: bool = parameter(False, doc="leave layers in float until the limit is met")

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the quantized flatbuffer."""
        from strop.graph.litert_quantizing import layers_of
        from strop.graph.repairing import within_limits

        if not any(is_float for _, is_float in layers_of(model.path)):
            return Unchanged("no layer has float weights")
        ranges = self._ranges(model, context)
        made = self._quantized(model, context, self.keep_float, ranges)
        if not self.repair or within_limits(context, made):
            return made
        return self._repaired(model, context, ranges)

    def _ranges(self, model: Model, context: Context) -> dict[str, Any]:
        """Return where calibration keeps what it finds; every variant of this pass finds the same in one model."""
        from strop.graph.litert_quantizing import kept_ranges

        if self.keep_float:  # of what stays in float none are found
            return {}
        return kept_ranges(model.digest, context.calibration.head(self.samples).digest())

    def _repaired(self, model: Model, context: Context, ranges: dict[str, Any]) -> Model:
        from strop.graph.litert_quantizing import answers, operations_of
        from strop.graph.repairing import COMPARED, repaired
        from strop.numerics.similarity import relative_error

        names = [name for name in operations_of(model.path) if name not in self.keep_float]
        samples = context.calibration.head(COMPARED)
        wanted = answers(model, samples)

        def quantized(left: tuple[str, ...]) -> Model:
            return self._quantized(model, context, (*self.keep_float, *left), ranges)

        def error_leaving(left: tuple[str, ...]) -> float:
            try:
                made = quantized(left)
            except QuantizationError:
                # It has no rule for the others: they stay in float and lose nothing.
                return 0.0
            found = answers(made, samples)
            made.path.unlink()  # a large model thirty-two times over would fill a disk
            return max(map(relative_error, wanted, found))

        return repaired(context, names, error_leaving, quantized)

    def _quantized(
        self,
        model: Model,
        context: Context,
        keep_float: tuple[str, ...],
        ranges: dict[str, Any],
    ) -> Model:
        from strop.graph.litert_quantizing import left_in_float, quantized

        path = context.workspace / f"model{len(list(context.workspace.glob('*.tflite')))}.tflite"
        binding = quantized(
            model,
            path,
            self._configure,
            calibration=context.calibration.head(self.samples),
            ranges=ranges,
            keep_float=keep_float,
        )
        facts = left_in_float(path, keep_float)
        return model.derive(self, Form.LITERT, path, binding, left_in_float=facts)

    def _configure(self, work: Any) -> None:
        work.add_static_config(".*", "*", self.activation_bits, 8)
        if self.io == "float":
            for border in ("INPUT", "OUTPUT"):
                work.update_quantization_recipe(".*", border, algorithm_key="no_quantize")
