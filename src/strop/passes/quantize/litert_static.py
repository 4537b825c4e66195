"""LiteRT static quantization: int8 weights and activations (or int16), ranges found by calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from strop.numerics.repair import errors_alone, fewest_left_out, rank_by_error

# Samples that answers are compared on, to rank operations: what one costs shows in few.
_COMPARED = 64


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

    activation_bits: int = parameter(
        8, choices=(8, 16), search=(8, 16), doc="width of an activation"
    )
    io: str = parameter(
        "float",
        choices=("float", "integer"),
        search=("float", "integer"),
        doc="dtype of inputs and outputs; integers save the conversions where the caller has them",
    )
    samples: int = parameter(128, low=1, doc="calibration samples")
    keep_float: tuple[str, ...] = parameter(
        (), doc="layers to leave in float, by their output tensors"
    )
    repair: bool = parameter(False, doc="leave layers in float until the limit is met")

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the quantized flatbuffer."""
        from strop.graph.litert_quantizing import layers_of

        if not any(is_float for _, is_float in layers_of(model.path)):
            return Unchanged("no layer has float weights")
        ranges: dict[str, Any] = {}
        made = self._quantized(model, context, self.keep_float, ranges)
        if not self.repair or context.goal.shortfall(context.evaluate(made)) is None:
            return made
        return self._repaired(model, context, ranges)

    def _repaired(self, model: Model, context: Context, ranges: dict[str, Any]) -> Model:
        from strop.graph.litert_quantizing import answers, operations_of
        from strop.numerics.similarity import relative_error

        names = [name for name in operations_of(model.path) if name not in self.keep_float]
        context.progress(0.0, f"repair: what each of {len(names)} operations costs")
        samples = context.calibration.head(_COMPARED)
        wanted = answers(model, samples)

        def error_leaving(left: tuple[str, ...]) -> float:
            try:
                made = self._quantized(model, context, (*self.keep_float, *left), ranges)
            except (
                QuantizationError
            ):  # it has no rule for the others: they stay in float and lose nothing
                return 0.0
            pairs = zip(wanted, answers(made, samples), strict=True)
            made.path.unlink()  # a large model thirty-two times over would fill a disk
            return max(relative_error(before, after) for before, after in pairs)

        ranked = rank_by_error(errors_alone(names, error_leaving))
        tried: dict[tuple[str, ...], Model] = {}

        def holds(kept: tuple[str, ...]) -> bool:
            context.progress(len(tried) / (len(tried) + 3), f"repair: {len(kept)} layers in float")
            try:
                tried[kept] = self._quantized(model, context, (*self.keep_float, *kept), ranges)
            except QuantizationError:
                # It refuses a model of which nothing is left to quantize. That loses nothing, so the limit holds,
                # and fewer are looked for; said otherwise, the search would end before it tried them.
                return len(kept) == len(names)
            return context.goal.shortfall(context.evaluate(tried[kept])) is None

        kept = fewest_left_out(ranked, holds)
        if kept is None or kept not in tried:
            raise QuantizationError(
                f"no repair found: the limit is missed with all but one of {len(names)} operations in float"
            )
        reasons = dict.fromkeys(kept, "it hurt the answers most")
        facts = {**tried[kept].facts["left_in_float"], **reasons}
        return replace(tried[kept], facts={**tried[kept].facts, "left_in_float": facts})

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
