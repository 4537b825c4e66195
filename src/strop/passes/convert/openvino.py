"""To OpenVINO's own form, by its model converter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
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
        from strop.graph.quiet import quiet
        from strop.graph.supported_ops import refusal_of

        path = context.workspace / "model.xml"
        with quiet():
            import openvino

            from strop.graph.openvino_naming import settle_names

            try:
                converted = _converted(model, context.workspace)
                _fix_shapes(converted, model)
                binding = _binding(converted, model)
                settle_names(converted)
                openvino.save_model(converted, str(path), compress_to_fp16=self.half_weights)
            except ConversionError:
                raise
            # OpenVINO raises errors of kinds of its own.
            except Exception as error:
                raise refusal_of("OpenVINO", error, model, "openvino") from error
        return model.derive(self, Form.OPENVINO, path, binding)


def _converted(model: Model, workspace: Path) -> Any:
    import openvino

    if model.form is not Form.GRAPH_DEF:
        return openvino.convert_model(str(model.path))
    from strop.graph.frozen import frozen_of, is_in_order

    if is_in_order(model):
        outputs = [bound.name for bound in model.binding.outputs]
        return openvino.convert_model(str(model.path), output=outputs)
    graph = frozen_of(model)
    ordered = workspace / "ordered.pb"
    ordered.write_bytes(graph.definition.SerializeToString())
    try:
        return openvino.convert_model(str(ordered), output=list(graph.outputs))
    finally:
        ordered.unlink()


def _fix_shapes(converted: Any, model: Model) -> None:
    """Give the inputs the signature's shapes, which a GraphDef's placeholders may not tell."""
    import openvino

    shapes = {}
    for bound, spec in zip(model.binding.inputs, model.signature.inputs, strict=True):
        if bound.permutation is None:
            batch = model.binding.batch or -1
            shape = [batch, *(-1 if n is None else n for n in spec.shape[1:])]
            port = converted.inputs[_position(converted.inputs, bound)]
            shapes[port] = openvino.PartialShape(shape)
    if shapes:
        converted.reshape(shapes)


def _position(ports: Sequence[Any], bound: TensorBinding) -> int:
    """Return the place of the port that a tensor became: by its name, else where it was."""
    wanted = {bound.name, bound.name.split(":")[0]}
    named = [place for place, port in enumerate(ports) if wanted & set(port.get_names())]
    return named[0] if len(named) == 1 else bound.index


def _binding(converted: Any, model: Model) -> Binding:
    """Call inputs and outputs as the signature does, in place; return how they stand."""
    given, wanted = model.binding, model.signature
    if (len(converted.inputs), len(converted.outputs)) != (len(given.inputs), len(given.outputs)):
        raise ConversionError(
            f"OpenVINO gave {len(converted.inputs)} inputs and {len(converted.outputs)} outputs for "
            f"{len(given.inputs)} and {len(given.outputs)}"
        )
    return Binding(
        _renamed(converted.inputs, given.inputs, wanted.input_names),
        _renamed(converted.outputs, given.outputs, wanted.output_names),
        given.batch,
    )


def _renamed(
    ports: Sequence[Any], bound: Sequence[TensorBinding], names: Sequence[str]
) -> tuple[TensorBinding, ...]:
    places = [_position(ports, b) for b in bound]
    for place, name in zip(places, names, strict=True):
        ports[place].get_tensor().set_names({name})
    return tuple(
        replace(b, name=name, index=place)
        for b, name, place in zip(bound, names, places, strict=True)
    )
