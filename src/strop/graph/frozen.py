"""Freezing: any TensorFlow model as one inlined GraphDef whose variables are constants, the pivot of all conversions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.core.model import Model
from strop.core.signature import Shape, Signature

_FOREIGN_TO_NODE_NAMES = re.compile(r"[^A-Za-z0-9_.\-]")
# What training leaves behind, and what converters can't translate but TensorFlow can compute away.
_WORTH_FOLDING = frozenset({"Switch", "RefSwitch", "Merge", "RefMerge", "Dequantize"})


@dataclass(frozen=True)
class FrozenGraph:
    """A GraphDef without variables, with the tensors that stand for the signature.

    Attributes:
        definition: The `GraphDef` protobuf.
        inputs: Tensor names (``x:0``) in the signature's order.
        outputs: Tensor names in the signature's order.
    """

    definition: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def freeze(
    function: Callable[..., Sequence[Any]], signature: Signature, *, batch: int | None = None
) -> FrozenGraph:
    """Return a frozen graph of a function of tensors.

    Its placeholders are named after the signature's inputs, and the nodes that give its outputs after those, as far
    as TensorFlow takes the names: what is made of the graph shows them to its users.

    Args:
        function: Takes tensors and returns a list of tensors, both in the signature's order.
        signature: Gives the names, shapes and dtypes of the inputs.
        batch: A batch size to fix; None leaves it as the signature has it.
    """
    from tensorflow.python.framework import convert_to_constants

    frozen = convert_to_constants.convert_variables_to_constants_v2(
        _traced(function, signature, batch=batch),
        lower_control_flow=False,
        aggressive_inlining=True,
    )
    definition = frozen.graph.as_graph_def()
    ends = [tensor.name.split(":")[0] for tensor in frozen.outputs]
    names = _rename_ends(definition, ends, signature.output_names)
    _add_unread_inputs(definition, signature, batch)
    return FrozenGraph(
        definition,
        tuple(f"{name}:0" for name in _node_names(signature.input_names)),
        tuple(f"{name}:0" for name in names),
    )


def refrozen(graph: FrozenGraph, signature: Signature) -> FrozenGraph:
    """Return the same function as a graph in order, from one that somebody else froze.

    Before:  IteratorGetNext ── img(PlaceholderWithDefault) ── Conv2D ── X ── loss;   training ── Switch ⇉ Merge
    After:   img(Placeholder) ── Conv2D ── X

    What the outputs don't depend on is gone, defaults stand where nobody feeds, branches that a constant decides
    are decided, and weights that were stored in codes are real numbers.
    """
    tidy = freeze(imported(graph.definition, graph.inputs, graph.outputs), signature)
    if not any(node.op in _WORTH_FOLDING for node in tidy.definition.node):
        return tidy
    return FrozenGraph(_folded(tidy), tidy.inputs, tidy.outputs)


def with_shapes(graph: FrozenGraph, signature: Signature, *, batch: int | None) -> Any:
    """Return a frozen graph as a concrete function whose inputs have `signature`'s shapes, the batch fixed.

    Placeholders in a graph carry their own shapes; retracing the graph under new ones lets shapes be inferred
    anew all the way down, which is what converters and engines want of a fixed batch.
    """
    from tensorflow.python.framework import convert_to_constants

    function = imported(graph.definition, graph.inputs, graph.outputs)
    return convert_to_constants.convert_variables_to_constants_v2(
        _traced(function, signature, batch=batch), lower_control_flow=False
    )


def imported(
    definition: Any, inputs: Sequence[str], outputs: Sequence[str]
) -> Callable[..., list[Any]]:
    """Return a frozen graph as a function of tensors, to be traced; any tensors may be its inputs and outputs."""
    import tensorflow as tf

    needed = _between(definition, inputs, outputs)
    read = {_full(name) for node in needed.node for name in node.input} | set(outputs)

    def function(*tensors: Any) -> list[Any]:
        fed = {name: tensor for name, tensor in zip(inputs, tensors, strict=True) if name in read}
        through = [name for name in outputs if name not in fed]
        found = tf.graph_util.import_graph_def(
            needed,
            input_map={name: tensor for name, tensor in fed.items() if _is_read(needed, name)},
            return_elements=through,
            name="graph",
        )
        results = dict(zip(through, found or (), strict=True))
        return [fed[name] if name in fed else results[name] for name in outputs]

    return function


def read_graph(path: Path) -> Any:
    """Return the GraphDef in a binary file."""
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(path.read_bytes())
    return definition


def frozen_of(model: Model) -> FrozenGraph:
    """Return the frozen graph that a model of form ``graph_def`` is, in order."""
    graph = FrozenGraph(
        read_graph(model.path),
        tuple(bound.name for bound in model.binding.inputs),
        tuple(bound.name for bound in model.binding.outputs),
    )
    return graph if is_in_order(model) else refrozen(graph, model.signature)


def is_in_order(model: Model) -> bool:
    """Say whether a frozen graph is one that we froze, and not one as somebody else left it."""
    return any(line.startswith("convert.graph_def") for line in model.lineage)


def _traced(
    function: Callable[..., Sequence[Any]], signature: Signature, *, batch: int | None
) -> Any:
    import tensorflow as tf

    specs = [
        tf.TensorSpec(_shape(spec.shape, batch), _dtype(spec.dtype), name=name)
        for spec, name in zip(signature.inputs, _node_names(signature.input_names), strict=True)
    ]
    return tf.function(
        lambda *tensors: list(function(*tensors)), autograph=False
    ).get_concrete_function(*specs)


def _shape(shape: Shape, batch: int | None) -> list[int | None]:
    return [batch or shape[0], *shape[1:]] if shape else []


def _dtype(name: str) -> str:
    return "string" if name == "str" else name


def _node_names(names: Sequence[str]) -> list[str]:
    """Return names that TensorFlow takes for nodes, as near to `names` as can be, each another.

    Example:
        >>> _node_names(["image", "x y", "x_y", "_p"])
        ['image', 'x_y', 'x_y_1', 'p']
    """
    found: list[str] = []
    for name in names:
        plain = _FOREIGN_TO_NODE_NAMES.sub("_", name).lstrip("_-") or "tensor"
        unique, number = plain, 1
        while unique in found:
            unique, number = f"{plain}_{number}", number + 1
        found.append(unique)
    return found


def _rename_ends(definition: Any, ends: Sequence[str], names: Sequence[str]) -> list[str]:
    """Name the nodes that give the outputs after `names`, in place, where no other node is called so."""
    taken = {node.name for node in definition.node} - set(ends)
    by_name = {node.name: node for node in definition.node}
    found = []
    for end, name in zip(ends, _node_names(names), strict=True):
        wanted, number = name, 0
        while wanted in taken:
            number += 1
            wanted = f"{name}_output_{number}" if number > 1 else f"{name}_output"
        taken.add(wanted)
        by_name[end].name = wanted  # nothing reads it: tracing ends every output in an Identity
        found.append(wanted)
    return found


def _add_unread_inputs(definition: Any, signature: Signature, batch: int | None) -> None:
    """Put back placeholders that freezing dropped because nothing reads them: the signature has them."""
    import tensorflow as tf

    present = {node.name for node in definition.node}
    for name, spec in zip(_node_names(signature.input_names), signature.inputs, strict=True):
        if name not in present:
            node = definition.node.add(name=name, op="Placeholder")
            node.attr["dtype"].type = tf.as_dtype(_dtype(spec.dtype)).as_datatype_enum
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(_shape(spec.shape, batch)).as_proto())


def _between(definition: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Return the part of a graph that lies between two sets of tensors; defaults stand where nobody feeds."""
    nodes = {node.name: node for node in definition.node}
    kept: set[str] = set()
    fed = {_full(name) for name in inputs}
    open_ends = [name.split(":")[0] for name in outputs if name not in fed]
    while open_ends:
        name = open_ends.pop()
        if name in kept:
            continue
        kept.add(name)
        open_ends += [_node(read) for read in nodes[name].input if _full(read) not in fed]
    part = type(definition)(versions=definition.versions, library=definition.library)
    for node in definition.node:
        if node.name in kept:
            _settled(part.node.add(), node, fed)
    return part


def _settled(new: Any, node: Any, fed: set[str]) -> None:
    new.CopyFrom(node)
    new.attr.pop("_output_shapes", None)  # what was inferred under other shapes
    # A control edge from an input says nothing: there is nothing to wait for.
    new.input[:] = [name for name in node.input if not (name[0] == "^" and f"{name[1:]}:0" in fed)]
    if node.op == "PlaceholderWithDefault":
        dtype = node.attr["dtype"].type
        new.op = "Identity"
        new.attr.clear()
        new.attr["T"].type = dtype


def _is_read(definition: Any, name: str) -> bool:
    return any(_full(read) == name for node in definition.node for read in node.input)


def _full(name: str) -> str:
    """Return the name of a tensor as TensorFlow writes it in full: ``x`` is ``x:0``."""
    return name if ":" in name or name.startswith("^") else f"{name}:0"


def _node(name: str) -> str:
    return name.removeprefix("^").split(":")[0]


def _folded(graph: FrozenGraph) -> Any:
    """Return the graph with what constants decide computed beforehand, by TensorFlow's own optimizer."""
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2
    from tensorflow.python.grappler import tf_optimizer

    with tf.Graph().as_default() as whole:
        tf.graph_util.import_graph_def(graph.definition, name="")
    meta = tf.compat.v1.train.export_meta_graph(graph_def=graph.definition, graph=whole)
    ends = meta.collection_def["train_op"].node_list
    ends.value.extend(_node(name) for name in (*graph.inputs, *graph.outputs))
    config = config_pb2.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.optimizers.extend(["constfold", "loop", "dependency", "pruning", "constfold"])
    rewriting.min_graph_nodes = -1  # small graphs are worth it too
    rewriting.meta_optimizer_iterations = 2
    return tf_optimizer.OptimizeGraph(config, meta)
