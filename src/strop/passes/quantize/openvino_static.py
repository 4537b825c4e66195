"""OpenVINO static quantization by NNCF: int8 weights and activations, ranges found by calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from strop.core.contracts import (
    OPENVINO,
    Context,
    Effort,
    Exactness,
    Needs,
    Pass,
    Requirement,
    Unchanged,
)
from strop.core.model import Form, Model
from strop.core.parameters import Value, parameter


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
    computes_in_integers = True

    preset: str = parameter(
        "mixed",
        choices=("mixed", "performance"),
        search=("mixed", "performance"),
        doc="'mixed' lets activations be asymmetric; 'performance' keeps all symmetric",
    )
    elementwise: str = parameter(
        "integer",
        choices=("integer", "float"),
        search=("integer", "float"),
        seldom=True,
        doc="where additions, products and means compute that no layer takes in; 'float' is faster in some "
        "residual networks",
    )
    transformer: bool = parameter(
        False,
        search=(False, True),
        doc="treat attention with the care it needs: symmetric products, smoothing, elementwise='float'",
    )
    fast_bias_correction: bool = parameter(
        True,
        search=(True, False),
        seldom=True,
        doc="estimate bias corrections and don't measure each",
    )
    smooth_quant: bool = parameter(
        True,
        search=(True, False),
        seldom=True,
        doc="move outliers from activations into weights (Xiao et al., 2023); transformers only",
    )
    samples: int = parameter(100, low=1, doc="calibration samples")
    keep_float: tuple[str, ...] = parameter((), doc="layers to leave in float, by name")
    repair: bool = parameter(False, doc="leave layers in float until the limit is met")

    @classmethod
    def variants(cls, known: Mapping[str, Value], effort: Effort) -> list[dict[str, Value]]:
        """Return the settings that a search should try; smoothing with and without for transformers alone."""
        found = super().variants(known, effort)
        return [s for s in found if s.get("transformer") or "smooth_quant" not in s]

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the quantized model."""
        from strop.graph.openvino_quantizing import has_attention, layers_of
        from strop.graph.repairing import within_limits

        if not layers_of(model.path):
            return Unchanged("no layer has weights that an integer kernel could use")
        if self.transformer and not has_attention(model.path):
            return Unchanged("the model has no attention: no softmax between two matrix products")
        made = self._quantized(model, context, self.keep_float)
        if not self.repair or within_limits(context, made):
            return made
        return self._repaired(model, made, context)

    def _repaired(self, model: Model, made: Model, context: Context) -> Model:
        from strop.graph.openvino_quantizing import answers, quantized_operations_of
        from strop.graph.repairing import repaired
        from strop.numerics.similarity import relative_error

        names = [n for n in quantized_operations_of(made.path) if n not in self.keep_float]
        wanted = answers(model.path, model.binding, context.calibration)

        def quantized(left: tuple[str, ...]) -> Model:
            return self._quantized(model, context, (*self.keep_float, *left))

        def error_leaving(left: tuple[str, ...]) -> float:
            only = [name for name in names if name not in left]
            found = answers(
                model.path, model.binding, context.calibration, quantized=made.path, only=only
            )
            return max(map(relative_error, wanted, found))

        return repaired(context, names, error_leaving, quantized)

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
                ignored_scope=ignored(graph, keep_float, elementwise=self.elementwise == "float"),
                advanced_parameters=advanced,
            )

        changed(model, path, quantize)
        left = left_in_float(path, keep_float)
        return model.derive(self, Form.OPENVINO, path, left_in_float=left)
