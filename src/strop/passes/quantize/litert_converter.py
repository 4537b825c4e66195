"""LiteRT static quantization by TensorFlow's own converter: int8 weights and activations, while it converts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from strop.core.contracts import (
    LITERT,
    TENSORFLOW,
    Context,
    Effort,
    Exactness,
    Needs,
    Pass,
    Unchanged,
)
from strop.core.model import Form, Model
from strop.core.parameters import parameter


@final
@dataclass(frozen=True)
class QuantizeByLiteRTConverter(Pass):
    """Quantize weights and activations with ranges that calibration samples showed, on the way to LiteRT.

    The older of LiteRT's two quantizers, beside `quantize.litert_static`. They choose other operations and other
    ranges, and which of the two gives the faster or the more faithful file differs from model to model.

    Before:  GraphDef
    After:   .tflite with int8 weights and activations between float inputs and outputs, float where no kernel is int8
    """

    takes = frozenset({Form.GRAPH_DEF})
    gives = Form.LITERT
    needs = Needs.SAMPLES
    requires = (TENSORFLOW, LITERT)
    exactness = Exactness.LOSSY
    computes_in_integers = True
    effort = Effort.STANDARD
    loads_tensorflow = True

    batch: int = parameter(0, low=0, search=("batch",), doc="batch size to fix; 0 leaves it free")
    samples: int = parameter(100, low=1, doc="calibration samples")

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the quantized flatbuffer."""
        from strop.graph.frozen import frozen_of
        from strop.graph.litert import to_litert
        from strop.graph.litert_quantizing import left_in_float
        from strop.graph.quiet import quiet
        from strop.graph.supported_ops import refusal_of

        batch = self.batch or model.binding.batch
        calibration = context.calibration.head(self.samples)

        def feed() -> Iterator[list[Any]]:
            for arrays in calibration.full_batches(batch or 1):
                yield [np.ascontiguousarray(array) for array in arrays.values()]

        def configure(converter: Any) -> None:
            import tensorflow as tf

            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = feed

        path = context.workspace / "model.tflite"
        with quiet():
            try:
                binding = to_litert(
                    frozen_of(model), model.signature, path, batch=batch, configure=configure
                )
            # The converter lets errors of every kind through.
            except Exception as error:
                raise refusal_of("the LiteRT converter", error, model, "litert") from error
        return model.derive(
            self, Form.LITERT, path, binding, left_in_float=left_in_float(path, ())
        )
