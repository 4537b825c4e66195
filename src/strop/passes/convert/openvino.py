"""To OpenVINO's own form, by its model converter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from strop.core.contracts import OPENVINO, Context, Exactness, Pass, Unchanged
from strop.core.errors import ConversionError
from strop.core.model import Binding, Form, Model, TensorBinding
from strop.core.parameters import parameter


@final
@dataclass(frozen=True)
class ConvertToOpenVINO(Pass):
    """Convert a frozen graph, an ONNX or a LiteRT model to OpenVINO's intermediate representation.

    Before:  GraphDef, .onnx or .tflite
    After:   .xml (the graph) and .bin (the weights)
    """

    takes = frozenset({Form.GRAPH_DEF, Form.ONNX, Form.LITERT})
    gives = Form.OPENVINO
    requires = (OPENVINO,)
    exactness = Exactness.ROUNDING

    half_weights: bool = parameter(
        False,
        doc="keep the weights in float16 on disk; they are computed with as the settings say",
    )

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the intermediate representation."""
        import openvino

        from strop.graph.quiet import quiet
        from strop.graph.refusal import refusal

        path = context.workspace / "model.xml"
        with quiet():
            try:
                converted = openvino.convert_model(str(model.path))
                _fix_shapes(converted, model)
                # Saving first settles names and order, which the binding is then read from.
                binding = _binding(converted, model)
                openvino.save_model(converted, str(path), compress_to_fp16=self.half_weights)
            except ConversionError:
                raise
            # OpenVINO raises errors of kinds of its own.
            except Exception as error:
                raise refusal("OpenVINO", error) from error
        return model.derive(self, Form.OPENVINO, path, binding)


def _fix_shapes(converted: Any, model: Model) -> None:
    """Give the inputs the signature's shapes, which a GraphDef's placeholders may not tell."""
    import openvino

    shapes = {}
    for bound, spec in zip(model.binding.inputs, model.signature.inputs, strict=True):
        if bound.permutation is None:
            batch = model.binding.batch or -1
            shape = [batch, *(-1 if n is None else n for n in spec.shape[1:])]
            shapes[_port(converted.inputs, bound)] = openvino.PartialShape(shape)
    if shapes:
        converted.reshape(shapes)


def _port(ports: Any, bound: TensorBinding) -> Any:
    """Return the port that a tensor became: by its name, else by its place."""
    wanted = {bound.name, bound.name.split(":")[0]}
    named = [port for port in ports if wanted & set(port.get_names())]
    return named[0] if len(named) == 1 else ports[bound.index]


def _binding(converted: Any, model: Model) -> Binding:
    if len(converted.inputs) != len(model.binding.inputs):
        raise ConversionError(
            f"OpenVINO gave {len(converted.inputs)} inputs for {len(model.binding.inputs)}"
        )

    def rebound(ports: Any, bound: TensorBinding) -> TensorBinding:
        port = _port(ports, bound)
        index = [p.get_node().get_friendly_name() for p in ports].index(
            port.get_node().get_friendly_name()
        )
        name = sorted(port.get_names())[0] if port.get_names() else bound.name
        return TensorBinding(
            name, index, bound.dtype, bound.permutation, bound.scale, bound.zero_point
        )

    return Binding(
        tuple(rebound(converted.inputs, b) for b in model.binding.inputs),
        tuple(rebound(converted.outputs, b) for b in model.binding.outputs),
        model.binding.batch,
    )
