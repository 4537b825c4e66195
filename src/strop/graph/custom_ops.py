"""Operations that TensorFlow does not have: cut out of a graph for as long as it is worked on, and put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from strop.graph.frozen import read_graph
from strop.graph.simplifying import Ends, leave_out_unneeded, needed_by
from strop.graph.view import full_name, node_of

_COPY = "/as_it_was"


def custom_nodes(definition: Any) -> list[Any]:
    """Return the nodes of a GraphDef whose operations come from a library that is not loaded."""
    from tensorflow.python.framework import op_def_registry

    called = {function.signature.name for function in definition.library.function}
    return [
        node
        for node in definition.node
        if node.op not in called and op_def_registry.get(node.op) is None
    ]


def _signatures(definition: Any) -> dict[str, Any]:
    """Return what each operation of a graph takes and gives, by its name; nothing of custom ones."""
    from tensorflow.python.framework import op_def_registry

    found = {node.op: op_def_registry.get(node.op) for node in definition.node}
    found |= {
        function.signature.name: function.signature for function in definition.library.function
    }
    return found


def without_custom(definition: Any) -> Any:
    """Return a graph with placeholders in the place of what custom operations give.

    Before:  x ── Conv2D ── Mystery ── Relu ── y
    After:   x ── Conv2D            Mystery(Placeholder) ── Relu ── y

    Their types are those that their readers want. What is behind the first output of an operation has the name of a
    tensor of its own, ``Mystery_1`` for ``Mystery:1``.

    Args:
        definition: A `GraphDef`; left as it is.
    """
    custom = {node.name: node for node in custom_nodes(definition)}
    made = type(definition)()
    made.CopyFrom(definition)
    del made.node[:]
    signatures, wanted = _signatures(definition), dict[str, int]()
    awaited: set[str] = set()
    for node in definition.node:
        if node.name in custom:
            continue
        for place, name in enumerate(node.input):
            if node_of(name) not in custom:
                continue
            if name.startswith("^"):
                awaited.add(node_of(name))
            else:
                wanted[full_name(name)] = _type_wanted(node, signatures[node.op], place)
    for tensor, number in wanted.items():
        node = made.node.add(name=_stand_in(tensor), op="Placeholder")
        node.attr["dtype"].type = number
        node.attr["shape"].shape.CopyFrom(_shape(custom[node_of(tensor)], tensor))
    standing = {node.name for node in made.node}
    for name in sorted(awaited - standing):
        made.node.add(name=name, op="NoOp")
    for node in definition.node:
        if node.name not in custom:
            kept = made.node.add()
            kept.CopyFrom(node)
            for place, name in enumerate(node.input):
                if not name.startswith("^") and node_of(name) in custom:
                    kept.input[place] = _stand_in(full_name(name))
    return made


def ends_at_custom(definition: Any, outputs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the tensors that a graph without its custom operations is fed, and asked for, in their place.

    Args:
        definition: The `GraphDef` as it was.
        outputs: The tensors that users ask for; what they don't depend on counts nothing.
    """
    custom = {node.name for node in custom_nodes(definition)}
    nodes = {node.name: node for node in definition.node}
    fed: dict[str, None] = {}
    asked: dict[str, None] = {}
    seen: set[str] = set()
    open_ends = [full_name(name) for name in outputs]
    while open_ends:
        name = node_of(open_ends.pop())
        if name in seen:
            continue
        seen.add(name)
        for tensor in nodes[name].input:
            open_ends.append(tensor)
            if tensor.startswith("^"):
                continue
            if node_of(tensor) in custom and name not in custom:
                fed[f"{_stand_in(full_name(tensor))}:0"] = None
            if name in custom and node_of(tensor) not in custom and _is_fed(nodes, tensor):
                asked[full_name(tensor)] = None
    return sorted(fed), sorted(asked)


def ends_with_custom(definition: Any, ends: Sequence[str]) -> list[str]:
    """Return the outputs of a graph by those of it without its custom operations, which end where these begin."""
    custom = {node.name for node in custom_nodes(definition)}
    read = {full_name(name) for node in definition.node for name in node.input}
    last = [f"{name}:0" for name in sorted(custom) if not any(node_of(r) == name for r in read)]
    return [name for name in ends if name not in read and node_of(name) not in custom] + last


def put_back(definition: Any, original: Any) -> None:
    """Put the custom operations of `original` back into a graph, in place, where `without_custom` took them out.

    What they read and what hangs on no input is copied from there, under names of its own.
    """
    nodes = {node.name: node for node in original.node}
    custom = {node.name: node for node in custom_nodes(original)}
    behind = {
        _stand_in(full_name(name)): full_name(name)
        for node in original.node
        for name in node.input
        if node_of(name) in custom and not name.startswith("^")
    }
    kept = [
        node for node in definition.node if node.name not in behind and node.name not in custom
    ]
    there = {node.name for node in kept} | set(custom)
    for node in kept:
        for place, name in enumerate(node.input):
            if not name.startswith("^") and node_of(name) in behind:
                node.input[place] = behind[node_of(name)].removesuffix(":0")
    whole = type(definition)(node=kept)
    copies: set[str] = set()
    for node in custom.values():
        back = whole.node.add()
        back.CopyFrom(node)
        del back.input[:]
        for name in node.input:
            if name.startswith("^"):
                # What it only waited for may be gone, since nothing else needed it.
                back.input.extend([name] if node_of(name) in there else [])
            elif node_of(name) in custom or _is_fed(nodes, name):
                back.input.append(name)
            else:
                copies |= needed_by(original, [name])
                back.input.append(_copied(name))
    for name in sorted(copies):
        copy = whole.node.add()
        copy.CopyFrom(nodes[name])
        copy.name = _copied(name)
        del copy.input[:]
        copy.input.extend(_copied(each) for each in nodes[name].input)
    del definition.node[:]
    definition.node.MergeFrom(whole.node)


def _is_fed(nodes: Mapping[str, Any], tensor: str) -> bool:
    """Say whether a tensor hangs on a placeholder, or on what a custom operation gives."""
    from tensorflow.python.framework import op_def_registry

    seen: set[str] = set()
    open_ends = [node_of(tensor)]
    while open_ends:
        name = open_ends.pop()
        if name in seen:
            continue
        seen.add(name)
        node = nodes[name]
        if node.op.startswith("Placeholder") or op_def_registry.get(node.op) is None:
            return True
        open_ends += map(node_of, node.input)
    return False


def _copied(name: str) -> str:
    """Return the name of a node's copy, or of the copy's tensor or control edge."""
    node, colon, number = name.partition(":")
    return f"{node}{_COPY}{colon}{number}"


def write_whole(cleaned: str, original: str, outputs: Sequence[str], target: str) -> None:
    """Write a graph that was worked on without its custom operations, with them, at `target`."""
    definition = read_graph(Path(cleaned))
    put_back(definition, read_graph(Path(original)))
    leave_out_unneeded(definition, Ends(_fed(definition), outputs))
    Path(target).write_bytes(definition.SerializeToString(deterministic=True))


def _fed(definition: Any) -> list[str]:
    return [node.name for node in definition.node if node.op == "Placeholder"]


def _stand_in(tensor: str) -> str:
    """Return the name of the placeholder for a tensor (``x:0``) of a custom operation."""
    name, number = tensor.split(":")
    return name if number == "0" else f"{name}_{number}"


def _type_wanted(node: Any, signature: Any, place: int) -> int:
    """Return the number of the type that a node wants at a place of its inputs."""
    found: list[int] = []
    for argument in signature.input_arg:
        if argument.type_list_attr:
            found += node.attr[argument.type_list_attr].list.type
            continue
        kind = argument.type or node.attr[argument.type_attr].type
        found += [kind] * (node.attr[argument.number_attr].i if argument.number_attr else 1)
    return found[place]


def _shape(node: Any, tensor: str) -> Any:
    """Return the shape of what a custom operation gives, where whoever wrote the graph noted it down."""
    from tensorflow.core.framework import tensor_shape_pb2

    noted = node.attr["_output_shapes"].list.shape if "_output_shapes" in node.attr else ()
    number = int(tensor.split(":")[1])
    return (
        noted[number]
        if number < len(noted)
        else tensor_shape_pb2.TensorShapeProto(unknown_rank=True)
    )
