"""To LiteRT (``.tflite``), by TensorFlow's own converter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from strop.core.contracts import LITERT, TENSORFLOW, Context, Exactness, Pass, Unchanged
from strop.core.errors import ConversionError, message
from strop.core.model import Form, Model
from strop.core.parameters import parameter

_LOOP = message(
    "LiteRT runs a loop over time only at a batch size that is known when it is traced.",
    "Fix it when the graph is frozen.",
    next_step="convert.graph_def(batch=1)",
)


@final
@dataclass(frozen=True)
class ConvertToLiteRT(Pass):
    """Convert a frozen graph to a LiteRT flatbuffer: in float32, or in the integers that it was taught to compute in.

    Before:  GraphDef
    After:   .tflite with built-in operations only
    """

    takes = frozenset({Form.GRAPH_DEF})
    gives = Form.LITERT
    requires = (TENSORFLOW, LITERT)
    exactness = Exactness.ROUNDING
    loads_tensorflow = True

    batch: int = parameter(0, low=0, search=("batch",), doc="batch size to fix; 0 leaves it free")

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the flatbuffer."""
        from strop.graph.frozen import frozen_of
        from strop.graph.litert import to_litert
        from strop.graph.quiet import quiet
        from strop.graph.supported_ops import refusal_of

        batch = self.batch or model.binding.batch
        path = context.workspace / "model.tflite"
        with quiet():
            try:
                binding = to_litert(
                    frozen_of(model), model.signature, path, batch=batch,
                    configure=_in_integers if _is_taught(model) else None,
                )  # fmt: skip
            except ConversionError:
                raise
            # The converter lets errors of every kind through.
            except Exception as error:
                if "TensorListReserve" in str(error):
                    raise ConversionError(_LOOP) from error
                raise refusal_of("the LiteRT converter", error, model, "litert") from error
        return model.derive(self, Form.LITERT, path, binding)


def _is_taught(model: Model) -> bool:
    """Say whether a graph has the ranges of its tensors in it, since it was taught to be quantized."""
    return any("quantize.aware" in step for step in model.lineage)


def _in_integers(converter: Any) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
