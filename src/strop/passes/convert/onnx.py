"""To ONNX, by tf2onnx."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from strop.core.contracts import (
    TENSORFLOW,
    Context,
    Exactness,
    Pass,
    Requirement,
    Unchanged,
)
from strop.core.model import Binding, Form, Model
from strop.core.parameters import parameter


@final
@dataclass(frozen=True)
class ConvertToONNX(Pass):
    """Convert a frozen graph to ONNX.

    Before:  GraphDef
    After:   .onnx of the default operator set, shapes simplified by onnxslim
    """

    takes = frozenset({Form.GRAPH_DEF})
    gives = Form.ONNX
    requires = (TENSORFLOW, Requirement("tf2onnx", "tf2onnx", "train"))
    exactness = Exactness.ROUNDING
    loads_tensorflow = True

    opset: int = parameter(
        18, low=13, high=18, doc="operator set; 18 is the newest that tf2onnx writes"
    )
    batch: int = parameter(0, low=0, doc="batch size to fix; 0 leaves it free")

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the ONNX file."""
        from strop.graph.frozen import frozen_of
        from strop.graph.quiet import quiet
        from strop.graph.refusal import refusal
        from strop.graph.to_onnx import to_onnx

        graph, batch = frozen_of(model), self.batch or model.binding.batch
        path = context.workspace / "model.onnx"
        with quiet():
            try:
                to_onnx(graph, model.signature, path, opset=self.opset, batch=batch)
            # tf2onnx lets errors of every kind through.
            except Exception as error:  # noqa: BLE001
                raise refusal("tf2onnx", error) from error
        binding = Binding.plain(
            model.signature, graph.inputs, graph.outputs, batch=batch
        )
        return model.derive(self, Form.ONNX, path, binding)
