"""Quantization-aware training: the model computes as if in integers while it is taught, and in integers after."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

from strop.core.contracts import Context, Unchanged
from strop.core.model import Binding, Form, Model
from strop.core.parameters import parameter
from strop.passes import TaughtPass

_CALIBRATION_SAMPLES = 512
_MOST_STEPS = 64  # as of `convert.graph_def`


@final
@dataclass(frozen=True)
class QuantizeAware(TaughtPass):
    """Round weights and what goes between layers to integer codes, and teach the model to do with that.

    It is taught by data and by what the original answers; zeros and clusters of weights stay what they are. What comes
    of it is a frozen graph with the ranges in it, of which LiteRT, OpenVINO and ONNX Runtime make integer models.

    Before:  x ── Conv2D(W) ── BatchNormalization ── ReLU ── y
    After:   x ── FakeQuant ── Conv2D(FakeQuant(s·W)) ── ReLU ── FakeQuant ── y      with s = γ / √(σ² + ε)
    """

    gives = Form.GRAPH_DEF
    computes_in_integers = True
    place = 50

    weight_bits: int = parameter(
        8,
        choices=(4, 7, 8),
        search=(8, "safe_weight_bits", 4),
        seldom=True,
        doc="width of a weight's code; engines compute with 8, of which 4 take half the room, zipped. With 7, OpenVINO and "
        "ONNX Runtime answer rightly on x86 processors without VNNI too, whose sums saturate with 8",
    )
    activation_bits: int = parameter(
        8,
        choices=(8, 16),
        doc="width of an activation's code; for 16 LiteRT alone has kernels, slower ones than for 8",
    )
    ranges: str = parameter(
        "moving_average",
        choices=("moving_average", "learned"),
        search=("moving_average", "learned"),
        doc="how ranges are found: from what batches hold, or by gradients",
    )
    learning_rate: float = parameter(
        0.0003,
        low=0.0,
        doc="at the beginning, falling along a cosine; 0 as for the others that train",
    )

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the frozen graph, with ranges, of the model as it was taught."""
        import keras

        from strop.graph.coded_weights import keep_codes
        from strop.graph.frozen import freeze
        from strop.graph.keras_files import opened
        from strop.graph.keras_models import by_name
        from strop.graph.recurrent import unroll
        from strop.train.quantization import Quantization, quantization_aware

        keras.utils.set_random_seed(context.seed)  # layers are made anew, some with seeds
        live = opened(model, compiled=True)
        settings = Quantization(
            self.weight_bits, self.activation_bits, self.ranges, exclude=self.exclude
        )
        aware = quantization_aware(live, settings)
        if not aware.quantized:
            left = [f"{name}: {reason}" for name, reason in aware.left_in_float.items()]
            return Unchanged("; ".join(["no layer computes in integers", *left]))
        aware.calibrate(context.training.head(_CALIBRATION_SAMPLES), model.signature)
        told: dict[str, Any] = {}
        if self.epochs and not aware.model.trainable_weights:
            told = {"taught_by": "nothing, since all that could be taught is frozen"}
        elif self.epochs:
            callbacks = [*aware.callbacks, *aware.keeping()]
            told = self.teach(aware.model, model, context, callbacks=callbacks)
        finished = aware.finished()
        sparsity, clusters = aware.counted(finished)
        if _longest(model) <= _MOST_STEPS:
            unroll(finished)  # LiteRT has no loops over time for a batch size that is free
        frozen = freeze(
            lambda *tensors: by_name(finished, tensors, model.signature), model.signature
        )
        keep_codes(frozen.definition)
        path = context.workspace / "model.pb"
        path.write_bytes(frozen.definition.SerializeToString(deterministic=True))
        binding = Binding.plain(model.signature, frozen.inputs, frozen.outputs)
        return model.derive(
            self, Form.GRAPH_DEF, path, binding,
            left_in_float=dict(aware.left_in_float), **_counts(sparsity, clusters), **told,
        )  # fmt: skip


def _longest(model: Model) -> float:
    """Return the longest of the axes that may be time, the ones behind the batch; infinity for one that is free."""
    axes = [spec.shape[1] for spec in model.signature.inputs if len(spec.shape) > 1]
    return max((math.inf if size is None else size for size in axes), default=0)


def _counts(sparsity: dict[str, float], clusters: dict[str, int]) -> dict[str, Any]:
    """Return the facts that tell of pruning and clustering, where there was any."""
    counted: dict[str, Any] = {"sparsity": sparsity, "clusters": clusters}
    return {name: count for name, count in counted.items() if count}
