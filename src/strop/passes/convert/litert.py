"""To LiteRT (``.tflite``), by TensorFlow's own converter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from strop.core.contracts import LITERT, TENSORFLOW, Context, Exactness, Pass, Unchanged
from strop.core.model import Form, Model
from strop.core.parameters import parameter


@final
@dataclass(frozen=True)
class ConvertToLiteRT(Pass):
    """Convert a frozen graph to a LiteRT flatbuffer in float32.

    Before:  GraphDef
    After:   .tflite with built-in operations only
    """

    takes = frozenset({Form.GRAPH_DEF})
    gives = Form.LITERT
    requires = (TENSORFLOW, LITERT)
    exactness = Exactness.ROUNDING
    loads_tensorflow = True

    batch: int = parameter(
        0, low=0, search=("batch", 0), doc="batch size to fix; 0 leaves it free"
    )

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the flatbuffer."""
        import tensorflow as tf

        from strop.graph.frozen import frozen_of, with_shapes
        from strop.graph.litert import binding_of
        from strop.graph.quiet import quiet
        from strop.graph.refusal import refusal

        batch = self.batch or model.binding.batch
        with quiet():
            try:
                function = with_shapes(frozen_of(model), model.signature, batch=batch)
                converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
                # Lists of tensors, which loops over time are made of, become plain tensors where shapes are known.
                converter._experimental_lower_tensor_list_ops = True
                content: Any = converter.convert()
            # The converter lets errors of every kind through.
            except Exception as error:  # noqa: BLE001
                raise refusal("the LiteRT converter", error) from error
        path = context.workspace / "model.tflite"
        path.write_bytes(content)
        names = (
            [tensor.name for tensor in function.inputs],
            [t.name for t in function.outputs],
        )
        return model.derive(
            self, Form.LITERT, path, binding_of(path, model, *names, batch=batch)
        )
