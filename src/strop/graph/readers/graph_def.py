"""Frozen graphs: ``.pb``, and ``.pbtxt`` as text."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from strop.core.errors import ModelError, message
from strop.core.model import Binding, Form, Model
from strop.core.signature import Signature, TensorSpec
from strop.graph.custom_ops import (
    custom_nodes,
    ends_at_custom,
    ends_with_custom,
    without_custom,
)
from strop.graph.frozen import output_shapes
from strop.graph.graph_safety import refuse_unsafe, with_called
from strop.graph.quiet import quiet
from strop.graph.reading import Options, shaped
from strop.graph.view import full_name, node_of

# Operations that end in nothing and are no outputs all the same.
_NO_OUTPUTS = frozenset(
    {
        "Assert", "Assign", "AssignAdd", "AssignSub", "Const", "HistogramSummary", "MergeSummary",
        "MergeV2Checkpoints", "NoOp", "Placeholder", "PlaceholderWithDefault", "Print", "PrintV2",
        "RestoreV2", "SaveV2", "ScalarSummary", "ShardedFilename",
    }
)  # fmt: skip
_MOST_BYTES = 2**31 - 1  # a protocol buffer holds no more
_PIPELINES = ("Iterator", "Dataset", "Queue")
_VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp", "AutoReloadVariable"})


def read(path: Path, workspace: Path, options: Options) -> Model:
    """Return the graph; its inputs are its placeholders and its outputs what nothing reads, unless named."""
    definition = whole = _parsed(path)
    notes: list[str] = []
    facts: dict[str, Any] = {}
    custom = custom_nodes(whole) if options.keep_custom_ops else []
    with quiet():
        if custom:
            definition = without_custom(whole)
        graph = _imported(definition, path)
        if custom:
            options, facts = _up_to_custom(whole, graph, options, workspace)
            notes += [_kept(node) for node in custom]
        outputs = _named(graph, options.outputs) or _ends(graph)
        switches = list(_switches(outputs)) if not options.inputs else []
        inputs = _named(graph, options.inputs) or list(_fed(outputs, switches))
        _check_ends(inputs, outputs, path)
        inside = list(_operations_between(inputs, outputs))
        _refuse_variables(inside, path)
        run = with_called(definition.library, [operation.node_def for operation in inside])
        refuse_unsafe(run, path, options.allow)
        file = path.resolve()
        if path.suffix == ".pbtxt" or switches or custom:
            notes += [_decided(definition, tensor) for tensor in switches]
            file = workspace / "model.pb"
            file.write_bytes(definition.SerializeToString(deterministic=True))
        signature = _signature(definition, inputs, outputs, options, path)
    binding = Binding.plain(
        signature, [t.name for t in inputs], [t.name for t in outputs], batch=signature.batch
    )
    if notes:
        facts["notes"] = notes
    return Model.at(Form.GRAPH_DEF, file, signature, binding, **facts)


def _up_to_custom(
    whole: Any, graph: Any, options: Options, workspace: Path
) -> tuple[Options, dict[str, Any]]:
    """Return options that name the ends of a graph without its custom operations, and what `write_whole` has to know.

    Args:
        whole: The `GraphDef` with them.
        graph: The imported graph without them.
        options: What the user named.
        workspace: Where the whole graph is written to, in binary.
    """
    outputs = [full_name(name) for name in options.outputs] or ends_with_custom(
        whole, [tensor.name for tensor in _ends(graph)]
    )
    fed, asked = ends_at_custom(whole, outputs)
    custom = {node.name for node in custom_nodes(whole)}
    ours = [name for name in outputs if node_of(name) not in custom]
    inside = replace(
        options,
        inputs=tuple(dict.fromkeys([*options.inputs, *fed])) if options.inputs else (),
        outputs=tuple(dict.fromkeys([*ours, *asked])),
    )
    file = workspace / "whole.pb"
    file.write_bytes(whole.SerializeToString(deterministic=True))
    return inside, {"custom_ops": {"graph": str(file), "fed": fed, "outputs": outputs}}


def _kept(node: Any) -> str:
    return (
        f"TensorFlow has no operation {node.op} ('{node.name}'): it is kept as it is, and what comes before and "
        "behind it is cleaned and checked on made-up values"
    )


def _parsed(path: Path) -> Any:
    import tensorflow as tf
    from google.protobuf import text_format

    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ModelError(
            message(
                f"'{path}' has {size / 1e9:.1f} GB, and a GraphDef can't have more than 2 GB.",
                "A SavedModel keeps its weights beside the graph and may be as large as it needs to be.",
            )
        )
    definition = tf.compat.v1.GraphDef()
    if path.suffix == ".pbtxt":
        text_format.Parse(path.read_text(), definition)
    else:
        definition.ParseFromString(path.read_bytes())
    if not definition.node:
        raise ModelError(
            message(
                f"'{path}' holds no graph: not one node.",
                "A frozen GraphDef is needed; a saved_model.pb is given by its folder.",
            )
        )
    return definition


def _imported(definition: Any, path: Path) -> Any:
    import tensorflow as tf

    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.graph_util.import_graph_def(definition, name="")
    except (ValueError, tf.errors.NotFoundError) as error:
        if "Op type not registered" not in str(error):
            raise
        operation = str(error).split("'")[1]
        raise ModelError(
            message(
                f"'{path}' uses the operation {operation}, which TensorFlow does not have.",
                "It comes from a library of custom operations, which strop does not load.",
            )
        ) from None
    return graph


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
            raise ModelError(message(f"the graph has no node called '{name}'.", hint)) from None
    return tensors


def _ends(graph: Any) -> list[Any]:
    return [
        operation.outputs[0]
        for operation in graph.get_operations()
        if operation.type not in _NO_OUTPUTS
        and operation.outputs
        and not any(word in operation.type for word in _PIPELINES)
        and not any(tensor.consumers() for tensor in operation.outputs)
        and not operation._control_outputs
    ]


def _switches(outputs: Sequence[Any]) -> Iterator[Any]:
    """Yield placeholders that only tell training from use: scalars, true or false, or a share to keep."""
    for operation in _operations_between((), outputs):
        if operation.type == "Placeholder" and operation.outputs[0].shape.rank == 0:
            tensor = operation.outputs[0]
            if tensor.dtype.is_bool or (tensor.dtype.is_floating and "keep" in tensor.name):
                yield tensor


def _decided(definition: Any, switch: Any) -> str:
    """Make a switch a constant, in place, as it stands in use; return the sentence that says so."""
    import tensorflow as tf

    value = False if switch.dtype.is_bool else 1.0
    node = next(node for node in definition.node if node.name == switch.op.name)
    node.op = "Const"
    node.attr.clear()
    node.attr["dtype"].type = switch.dtype.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, switch.dtype, shape=[]))
    return f"the placeholder '{node.name}' is taken as {value}, as it stands when a model is used"


def _fed(outputs: Sequence[Any], switches: Sequence[Any]) -> Iterator[Any]:
    """Yield the tensors that the outputs wait for: placeholders, unless they have a default that can be computed.

    A default that comes from an input pipeline can't be; one that comes from another placeholder, or is constant,
    can, and stands.
    """
    decided = {tensor.op.name for tensor in switches}
    found: dict[int, Any] = {}
    for operation in _operations_between((), outputs, through_pipelines=False):
        is_open = operation.type == "Placeholder" or (
            operation.type == "PlaceholderWithDefault" and _is_from_pipeline(operation)
        )
        if is_open and operation.name not in decided:
            found[operation._id_value] = operation.outputs[0]
    yield from (found[place] for place in sorted(found))


def _is_from_pipeline(placeholder: Any) -> bool:
    """Say whether a placeholder's default is drawn from a data set or a queue."""
    return any(
        any(word in operation.type for word in _PIPELINES)
        for operation in _operations_between((), placeholder.inputs)
    )


def _operations_between(
    inputs: Sequence[Any], outputs: Sequence[Any], *, through_pipelines: bool = True
) -> Iterator[Any]:
    """Yield the operations that `outputs` depend on, without going past `inputs`."""
    fed = {tensor.name for tensor in inputs}
    seen: set[str] = set()
    open_ends = [tensor.op for tensor in outputs if tensor.name not in fed]
    while open_ends:
        operation = open_ends.pop()
        if operation.name in seen:
            continue
        seen.add(operation.name)
        yield operation
        if (
            not through_pipelines
            and operation.type == "PlaceholderWithDefault"
            and _is_from_pipeline(operation)
        ):
            continue
        open_ends.extend(tensor.op for tensor in operation.inputs if tensor.name not in fed)
        open_ends.extend(operation.control_inputs)


def _check_ends(inputs: Sequence[Any], outputs: Sequence[Any], path: Path) -> None:
    if inputs and outputs:
        return
    raise ModelError(
        message(
            f"'{path}' has {len(inputs)} placeholders and {len(outputs)} ends that could be outputs.",
            "Name its inputs and outputs.",
            next_step="--inputs input:0 --outputs final_result:0",
        )
    )


def _refuse_variables(operations: Sequence[Any], path: Path) -> None:
    names = [operation.name for operation in operations if operation.type in _VARIABLES]
    if names:
        raise ModelError(
            message(
                f"'{path}' is not frozen: it has {len(names)} variables ('{names[0]}' among them) whose values "
                "lie elsewhere, in a checkpoint.",
                "Freeze it together with its checkpoint, or give the SavedModel folder that it belongs to.",
            )
        )


def _signature(
    definition: Any, inputs: Sequence[Any], outputs: Sequence[Any], options: Options, path: Path
) -> Signature:
    told = Signature(
        tuple(_spec(name, tensor) for name, tensor in _short_names(inputs)),
        tuple(_spec(name, tensor) for name, tensor in _short_names(outputs)),
    )
    rankless = [name for name, tensor in _short_names(inputs) if tensor.shape.rank is None]
    # A placeholder's size is what its owner happened to write; the graph is traced anew.
    given = shaped(told, options, path, rankless=rankless, sizes_stay=False)
    try:
        shapes = output_shapes(
            definition, [t.name for t in inputs], [t.name for t in outputs], given
        )
    except ValueError as error:
        raise ModelError(
            message(
                f"'{path}' can't be run on {', '.join(str(spec) for spec in given.inputs)}: {error}",
                "Give the shape that it was made for, the batch first; a ? leaves a dimension free.",
                next_step=f"--shape {given.inputs[0].name}=?,224,224,3",
            )
        ) from error
    return replace(
        given,
        outputs=tuple(
            replace(spec, shape=shape) for spec, shape in zip(given.outputs, shapes, strict=True)
        ),
    )


def _short_names(tensors: Sequence[Any]) -> list[tuple[str, Any]]:
    """Return each tensor with its node's name, or its own where two come from one node."""
    short = [tensor.op.name for tensor in tensors]
    return [
        (name if short.count(name) == 1 else tensor.name, tensor)
        for name, tensor in zip(short, tensors, strict=True)
    ]


def _spec(name: str, tensor: Any) -> TensorSpec:
    shape = tuple(tensor.shape.as_list()) if tensor.shape.rank is not None else (None,)
    return TensorSpec(name, shape, "str" if tensor.dtype.name == "string" else tensor.dtype.name)
