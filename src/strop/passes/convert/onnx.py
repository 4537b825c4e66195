"""To ONNX, by tf2onnx."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from strop.core.contracts import TENSORFLOW, Context, Exactness, Pass, Requirement, Unchanged
from strop.core.model import Binding, Form, Model
from strop.core.parameters import parameter


@final
@dataclass(frozen=True)
class ConvertToONNX(Pass):
    """Convert a frozen graph or a LiteRT flatbuffer to ONNX.

    Before:  GraphDef or .tflite
    After:   .onnx with constants folded and shapes computed beforehand; with weights in codes where they were taught so
    """

    takes = frozenset({Form.GRAPH_DEF, Form.LITERT})
    gives = Form.ONNX
    requires = (TENSORFLOW, Requirement("tf2onnx", "tf2onnx", "train"))
    exactness = Exactness.ROUNDING
    loads_tensorflow = True

    opset: int = parameter(
        18, low=13, high=18, doc="operator set; 18 is the newest that tf2onnx writes"
    )
    batch: int = parameter(0, low=0, search=("batch",), doc="batch size to fix; 0 leaves it free")

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the ONNX file."""
        from strop.graph.quiet import quiet
        from strop.graph.supported_ops import refusal_of

        path, batch = context.workspace / "model.onnx", self.batch or model.binding.batch
        with quiet():
            try:
                binding = self._converted(model, path, batch)
            # tf2onnx lets errors of every kind through.
            except Exception as error:
                raise refusal_of("tf2onnx", error, model, "onnxruntime") from error
        return model.derive(self, Form.ONNX, path, binding)

    def _converted(self, model: Model, path: Path, batch: int | None) -> Binding:
        from strop.graph.to_onnx import litert_to_onnx, to_onnx

        if model.form is Form.LITERT:
            litert_to_onnx(model.path, path, opset=self.opset, batch=batch)
            return replace(model.binding, batch=batch)
        from strop.graph.coded_weights import coded_weights_of
        from strop.graph.frozen import frozen_of
        from strop.graph.onnx_taught import put_codes

        graph = frozen_of(model)
        inputs, outputs = (
            [n.split(":")[0] for n in side] for side in (graph.inputs, graph.outputs)
        )
        names = inputs, outputs
        to_onnx(graph, path, names, opset=self.opset, batch=batch)
        if kernels := coded_weights_of(graph.definition):
            put_codes(path, kernels)
        return Binding.plain(model.signature, *names, batch=batch)
