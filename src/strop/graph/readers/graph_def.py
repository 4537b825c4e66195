"""Frozen graphs: ``.pb``, and ``.pbtxt`` as text."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from strop.core.errors import ModelError, message
from strop.core.model import Binding, Form, Model
from strop.core.signature import Signature, TensorSpec
from strop.graph.graph_safety import refuse_unsafe
from strop.graph.quiet import quiet
from strop.graph.reading import Options

# Operations that end in nothing and are no outputs all the same.
_NO_OUTPUTS = {
    "NoOp",
    "Assert",
    "Const",
    "SaveV2",
    "MergeV2Checkpoints",
    "Placeholder",
    "Print",
}


def read(path: Path, workspace: Path, options: Options) -> Model:
    """Return the graph; its inputs are its placeholders and its outputs what nothing reads, unless named."""
    import tensorflow as tf

    definition = _parsed(path)
    if not definition.node:
        raise ModelError(
            message(
                f"'{path}' holds no graph: not one node.",
                "A frozen GraphDef is needed; a saved_model.pb is given by its folder.",
            )
        )
    refuse_unsafe(definition.node, path, options.allow)
    with quiet():
        graph = tf.Graph()
        with graph.as_default():
            tf.import_graph_def(definition, name="")
        outputs = _named(graph, options.outputs) or _ends(graph)
        inputs = _named(graph, options.inputs) or _placeholders(outputs)
    if not inputs or not outputs:
        raise ModelError(
            message(
                f"'{path}' has {len(inputs)} placeholders and {len(outputs)} ends that could be outputs.",
                "Name its inputs and outputs.",
                next_step="--inputs input:0 --outputs final_result:0",
            )
        )
    signature = Signature(_specs(inputs), _specs(outputs)).with_shapes(options.shapes)
    binding = Binding.plain(
        signature, [t.name for t in inputs], [t.name for t in outputs]
    )
    file = path.resolve()
    if path.suffix == ".pbtxt":
        file = workspace / "model.pb"
        file.write_bytes(definition.SerializeToString())
    return Model.at(Form.GRAPH_DEF, file, signature, binding)


def _parsed(path: Path) -> Any:
    import tensorflow as tf
    from google.protobuf import text_format

    definition = tf.compat.v1.GraphDef()
    if path.suffix == ".pbtxt":
        text_format.Parse(path.read_text(), definition)
    else:
        definition.ParseFromString(path.read_bytes())
    return definition


def _named(graph: Any, names: Sequence[str]) -> list[Any]:
    tensors = []
    for name in names:
        full = name if ":" in name else f"{name}:0"
        try:
            tensors.append(graph.get_tensor_by_name(full))
        except (KeyError, ValueError):
            known = [operation.name for operation in graph.get_operations()]
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"The nearest: {', '.join(near)}." if near else ""
            raise ModelError(
                message(f"the graph has no node called '{name}'.", hint)
            ) from None
    return tensors


def _placeholders(outputs: Sequence[Any]) -> list[Any]:
    """Return the placeholders that the outputs depend on, in the order of the graph."""
    seen, found, open_ends = set(), {}, [tensor.op for tensor in outputs]
    while open_ends:
        operation = open_ends.pop()
        if operation.name in seen:
            continue
        seen.add(operation.name)
        if operation.type == "Placeholder":
            found[operation._id_value] = operation.outputs[0]
        open_ends.extend(tensor.op for tensor in operation.inputs)
        open_ends.extend(operation.control_inputs)
    return [found[key] for key in sorted(found)]


def _ends(graph: Any) -> list[Any]:
    return [
        op.outputs[0]
        for op in graph.get_operations()
        if op.type not in _NO_OUTPUTS
        and op.outputs
        and not any(tensor.consumers() for tensor in op.outputs)
        and not op._control_outputs
    ]


def _specs(tensors: Sequence[Any]) -> tuple[TensorSpec, ...]:
    short = [tensor.name.split(":")[0] for tensor in tensors]
    return tuple(
        TensorSpec(
            name if short.count(name) == 1 else tensor.name,
            tuple(tensor.shape.as_list()) if tensor.shape.rank is not None else (None,),
            "str" if tensor.dtype.name == "string" else tensor.dtype.name,
        )
        for name, tensor in zip(short, tensors, strict=True)
    )
