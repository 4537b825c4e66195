"""OpenVINO static quantization by NNCF: int8 weights and activations, ranges found by calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

from strop.core.contracts import (
    OPENVINO,
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
from strop.numerics.repair import fewest_left_out, rank_by_added_error


@final
@dataclass(frozen=True)
class QuantizeStaticOpenVINO(Pass):
    """Quantize weights and activations with ranges that calibration samples showed.

    With `repair`, layers are left in float, those that hurt most first, until the goal's limit is met.

    Before:  x ── Convolution(W float32) ── y
    After:   x ── FakeQuantize ── Convolution(W int8 a channel) ── y      (run by integer kernels)
    """

    takes = frozenset({Form.OPENVINO})
    needs = Needs.SAMPLES
    requires = (OPENVINO, Requirement("nncf", "nncf", "train"))
    exactness = Exactness.LOSSY

    preset: str = parameter(
        "mixed",
        choices=("mixed", "performance"),
        doc="'mixed' lets activations be asymmetric; 'performance' keeps all symmetric",
    )
    transformer: bool = parameter(
        False, search=(True,), doc="treat attention with the care it needs"
    )
    fast_bias_correction: bool = parameter(
        True, doc="estimate bias corrections and don't measure each"
    )
    smooth_quant: bool = parameter(
        True,
        doc="move outliers from activations into weights (Xiao et al., 2023); transformers only",
    )
    samples: int = parameter(128, low=1, doc="calibration samples")
    keep_float: tuple[str, ...] = parameter((), doc="layers to leave in float, by name")
    repair: bool = parameter(False, doc="leave layers in float until the limit is met")

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the quantized model."""
        from strop.graph.openvino_quantizing import errors_by_layer, layers_of

        layers = layers_of(model.path)
        if not layers:
            return Unchanged("no layer has weights that an integer kernel could use")
        if self.transformer and not any(
            "MatMul" in name or "dot" in name.lower() for name, _ in layers
        ):
            return Unchanged("the model has no matrix products, so it is no transformer")
        made = self._quantized(model, context, self.keep_float)
        if not self.repair or context.goal.shortfall(context.evaluate(made)) is None:
            return made
        errors = errors_by_layer(model.path, made.path, model.binding, context.calibration)
        ranked = [name for name in rank_by_added_error(errors) if name not in self.keep_float]
        tried: dict[tuple[str, ...], Model] = {}

        def holds(kept: tuple[str, ...]) -> bool:
            context.progress(len(tried) / (len(tried) + 3), f"repair: {len(kept)} layers in float")
            tried[kept] = self._quantized(model, context, (*self.keep_float, *kept))
            return context.goal.shortfall(context.evaluate(tried[kept])) is None

        kept = fewest_left_out(ranked, holds)
        if kept is None:
            raise QuantizationError(
                f"no repair found: with all {len(ranked)} layers in float the limit is still missed"
            )
        reasons = dict.fromkeys(kept, "it hurt the answers most")
        facts = {**tried[kept].facts["left_in_float"], **reasons}
        return replace(tried[kept], facts={**tried[kept].facts, "left_in_float": facts})

    def _quantized(self, model: Model, context: Context, keep_float: tuple[str, ...]) -> Model:
        from strop.graph.openvino_quantizing import (
            changed,
            dataset,
            ignored,
            left_in_float,
        )

        path = context.workspace / f"model{len(list(context.workspace.glob('*.xml')))}.xml"
        samples = context.calibration.head(self.samples)

        def quantize(graph: Any) -> Any:
            import nncf

            advanced = None
            if not self.smooth_quant:
                advanced = nncf.AdvancedQuantizationParameters(smooth_quant_alpha=-1.0)
            return nncf.quantize(
                graph,
                dataset(model, samples),
                preset=nncf.QuantizationPreset(self.preset),
                subset_size=len(samples),
                fast_bias_correction=self.fast_bias_correction,
                model_type=nncf.ModelType.TRANSFORMER if self.transformer else None,
                ignored_scope=ignored(graph, keep_float),
                advanced_parameters=advanced,
            )

        changed(model, path, quantize)
        left = left_in_float(path, keep_float)
        return model.derive(self, Form.OPENVINO, path, left_in_float=left)
