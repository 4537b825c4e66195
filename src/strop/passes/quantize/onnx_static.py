"""ONNX Runtime static quantization: int8 weights and activations as Q/DQ pairs, ranges found by calibration."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import final

from strop.core.contracts import (
    ONNX_RUNTIME,
    Context,
    Exactness,
    Needs,
    Pass,
    Requirement,
    Unchanged,
)
from strop.core.model import Form, Model
from strop.core.parameters import parameter

# Each brings millions of values, and all of a stride's lie in memory at once.
_MOST_FOR_HISTOGRAMS, _STRIDE = 32, 4
_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}


@final
@dataclass(frozen=True)
class QuantizeStaticONNX(Pass):
    """Quantize weights and activations with ranges that calibration samples showed.

    With `repair`, layers are left in float, those that hurt most first, until the goal's limit is met.

    Before:  x ── Conv(W float32) ── y
    After:   x ── Q ── DQ ── Conv(DQ(W int8 a channel)) ── Q ── DQ ── y     (fused into an integer kernel)
    """

    takes = frozenset({Form.ONNX})
    needs = Needs.SAMPLES
    requires = (
        ONNX_RUNTIME,
        Requirement("onnx", "onnx", "train"),
        Requirement("sympy", "sympy", "train"),
    )
    exactness = Exactness.LOSSY
    computes_in_integers = True

    method: str = parameter(
        "minmax",
        choices=tuple(_METHODS),
        search=("minmax", "percentile"),
        doc="how ranges are found",
    )
    weight_bits: int = parameter(
        8,
        choices=(7, 8),
        search=(8, "safe_weight_bits"),
        doc="width of a weight's code; with 7, sums don't saturate on x86 processors without VNNI either",
    )
    samples: int = parameter(
        100,
        low=1,
        doc="calibration samples; for histograms, which all methods but minmax draw up, 32 at most",
    )
    keep_float: tuple[str, ...] = parameter(
        (), doc="layers to leave in float, by their output tensors"
    )
    repair: bool = parameter(False, doc="leave layers in float until the limit is met")

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the quantized model."""
        from strop.graph.onnx_quantizing import (
            is_quantized,
            layers_of,
            prepared,
        )
        from strop.graph.quiet import quiet
        from strop.graph.repairing import within_limits

        if is_quantized(model.path):
            return Unchanged("the model is quantized already")
        with quiet():
            ready = prepared(model, context.workspace)
        if not layers_of(ready):
            return Unchanged("no layer has weights that an integer kernel could use")
        made = self._quantized(model, ready, context, self.keep_float)
        if not self.repair or within_limits(context, made):
            return made
        return self._repaired(model, ready, context)

    def _repaired(self, model: Model, ready: Path, context: Context) -> Model:
        from strop.graph.onnx_quantizing import answers, operations_of
        from strop.graph.repairing import COMPARED, repaired
        from strop.numerics.similarity import relative_error

        names = [name for name in operations_of(ready) if name not in self.keep_float]
        samples = context.calibration.head(COMPARED)
        wanted = answers(ready, model, samples)

        def quantized(left: tuple[str, ...]) -> Model:
            return self._quantized(model, ready, context, (*self.keep_float, *left))

        def error_leaving(left: tuple[str, ...]) -> float:
            made = quantized(left)
            found = answers(made.path, model, samples)
            made.path.unlink()  # a large model thirty-two times over would fill a disk
            return max(map(relative_error, wanted, found))

        return repaired(context, names, error_leaving, quantized)

    def _quantized(
        self, model: Model, ready: Path, context: Context, keep_float: tuple[str, ...]
    ) -> Model:
        from onnxruntime.quantization import (
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )

        from strop.graph.onnx_quantizing import (
            guarded,
            left_in_float,
            node_names,
            reader,
        )

        path = context.workspace / f"model{len(list(context.workspace.glob('model*.onnx')))}.onnx"

        # Ranges don't depend on what stays in float, so repair finds them once, where ONNX Runtime can keep them.
        can_keep = "calibration_cache_path" in inspect.signature(quantize_static).parameters
        found = {"calibration_cache_path": context.workspace / "ranges.json"} if can_keep else {}

        count, stride = self.samples, None
        if self.method != "minmax":
            count, stride = min(count, _MOST_FOR_HISTOGRAMS), _STRIDE
        given = reader(model, context.calibration.head(count), stride=stride)

        def quantize() -> None:
            quantize_static(
                str(ready),
                str(path),
                given,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=self.weight_bits == 7,
                # What ONNX Runtime's documentation advises for processors with VNNI; on others sums of
                # 8 bits may saturate.
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=node_names(ready, keep_float),
                calibrate_method=getattr(CalibrationMethod, _METHODS[self.method]),
                extra_options={"CalibStridedMinMax": given.stride},
                **found,
            )

        guarded(quantize)
        left = left_in_float(path, keep_float)
        return model.derive(self, Form.ONNX, path, left_in_float=left)
