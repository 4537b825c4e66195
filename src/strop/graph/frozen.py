"""Freezing: any TensorFlow model as one inlined GraphDef whose variables are constants, the pivot of all conversions."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.core.model import Model
from strop.core.signature import Shape, Signature
from strop.graph.grappler import grappled
from strop.graph.spelling import spell_fused, spell_products
from strop.graph.view import full_name, node_of

_FOREIGN_TO_NODE_NAMES = re.compile(r"[^A-Za-z0-9_.\-]")
_BRANCHING = frozenset({"Switch", "RefSwitch", "Merge", "RefMerge"})


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
    ends = [node_of(tensor.name) for tensor in frozen.outputs]
    _forget_gradients(definition)
    _shorten_ends(definition, ends)
    outputs = [f"{name}:0" for name in _rename_ends(definition, ends, signature.output_names)]
    spell_fused(definition)
    spell_products(definition)
    definition = _between(definition, (), outputs)
    _add_unread_inputs(definition, signature, batch)
    inputs = [f"{name}:0" for name in _node_names(signature.input_names)]
    return FrozenGraph(definition, tuple(inputs), tuple(outputs))


def refrozen(graph: FrozenGraph, signature: Signature, *, batch: int | None = None) -> FrozenGraph:
    """Return the same function as a graph in order, from one that somebody else froze.

    Before:  IteratorGetNext ── img(PlaceholderWithDefault) ── Conv2D ── X ── loss;   training ── Switch ⇉ Merge
    After:   img(Placeholder) ── Conv2D ── X

    What the outputs don't depend on is gone, defaults stand where nobody feeds, branches that a constant decides
    are decided, and weights that were stored in codes are real numbers.
    """
    tidy = with_shapes(graph, signature, batch=batch)
    _decode_weights(tidy.definition)
    if not any(node.op in _BRANCHING for node in tidy.definition.node):
        return tidy
    return FrozenGraph(_folded(tidy), tidy.inputs, tidy.outputs)


def traced(graph: FrozenGraph, signature: Signature, *, batch: int | None) -> Any:
    """Return a frozen graph as a concrete function whose inputs have `signature`'s shapes, the batch fixed."""
    return _traced(imported(graph.definition, graph.inputs, graph.outputs), signature, batch=batch)


def with_shapes(graph: FrozenGraph, signature: Signature, *, batch: int | None) -> FrozenGraph:
    """Return a frozen graph whose inputs have `signature`'s shapes, the batch fixed, under the same names.

    Placeholders in a graph carry their own shapes; retracing the graph under new ones lets shapes be inferred
    anew all the way down, which is what converters and engines want of a fixed batch.
    """
    return freeze(imported(graph.definition, graph.inputs, graph.outputs), signature, batch=batch)


def output_shapes(
    definition: Any, inputs: Sequence[str], outputs: Sequence[str], signature: Signature
) -> list[Shape]:
    """Return the shapes of a graph's outputs when its inputs have `signature`'s; None where they can't be told."""
    traced = _traced(imported(definition, inputs, outputs), signature, batch=None)
    # A rank that can't be inferred either is taken as that of one number a sample.
    return [
        tuple(tensor.shape.as_list()) if tensor.shape.rank is not None else (None,)
        for tensor in traced.outputs
    ]


def imported(
    definition: Any, inputs: Sequence[str], outputs: Sequence[str]
) -> Callable[..., list[Any]]:
    """Return a frozen graph as a function of tensors, to be traced; any tensors may be its inputs and outputs."""
    import tensorflow as tf

    needed = _with_own_functions(_between(definition, inputs, outputs))
    read = {full_name(name) for node in needed.node for name in node.input}

    def function(*tensors: Any) -> list[Any]:
        _make_known(needed.library)
        fed = dict(zip(map(full_name, inputs), tensors, strict=True))
        within = [name for name in outputs if full_name(name) not in fed]
        found = tf.graph_util.import_graph_def(
            needed,
            input_map={name: tensor for name, tensor in fed.items() if name in read},
            return_elements=within,
            name=_free_scope(needed),
        )
        results = fed | dict(zip(map(full_name, within), found or (), strict=True))
        return [results[full_name(name)] for name in outputs]

    return function


def read_graph(path: Path) -> Any:
    """Return the GraphDef in a binary file."""
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(path.read_bytes())
    return definition


def frozen_of(model: Model, *, batch: int | None = None) -> FrozenGraph:
    """Return the frozen graph that a model of form ``graph_def`` is, in order.

    Args:
        model: The model.
        batch: A batch size to fix where the graph is put in order now; one that is, stays as it is.
    """
    graph = FrozenGraph(
        read_graph(model.path),
        tuple(bound.name for bound in model.binding.inputs),
        tuple(bound.name for bound in model.binding.outputs),
    )
    return graph if is_in_order(model) else refrozen(graph, model.signature, batch=batch)


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


def _forget_gradients(definition: Any) -> None:
    """Take out, in place, what says how to differentiate: nobody trains a frozen graph, and saving stumbles over it."""
    inner = [node for function in definition.library.function for node in function.node_def]
    for node in (*definition.node, *inner):
        node.attr.pop("_gradient_op_type", None)
    del definition.library.gradient[:]
    del definition.library.registered_gradients[:]


def _shorten_ends(definition: Any, ends: Sequence[str]) -> None:
    """Leave of each end what it reads, in place: no waits (for assertions), and no second Identity before it.

    Each tracing puts another Identity behind the last.
    """
    by_name = {node.name: node for node in definition.node}
    often = Counter(node_of(name) for node in definition.node for name in node.input)
    for end in ends:
        del by_name[end].input[1:]
        source = by_name[node_of(by_name[end].input[0])]
        if source.op == "Identity" and often[source.name] == 1:
            by_name[end].input[0] = source.input[0]


def _rename_ends(definition: Any, ends: Sequence[str], names: Sequence[str]) -> list[str]:
    """Name the nodes that give the outputs after `names`, in place; a node within that is called so makes room."""
    wanted = _node_names(names)
    by_name = {node.name: node for node in definition.node}
    moved: dict[str, str] = {}
    for name in wanted:
        if name in by_name and by_name[name].op != "Placeholder" and name not in ends:
            moved[name] = f"{name}/value"
            while moved[name] in by_name:
                moved[name] += "_"
            by_name[name].name = moved[name]
    for node in definition.node if moved else ():
        node.input[:] = [_renamed(read, moved) for read in node.input]
    taken = {node.name for node in definition.node} - set(ends)
    found = [name if name not in taken else f"{name}_output" for name in wanted]
    for end, name in zip([by_name[end] for end in ends], found, strict=True):
        end.name = name  # nothing reads it: tracing ends every output in an Identity
    return found


def _renamed(read: str, moved: Mapping[str, str]) -> str:
    node = node_of(read)
    return read.replace(node, moved[node], 1) if node in moved else read


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
    fed = {full_name(name) for name in inputs}
    open_ends = [name.split(":")[0] for name in outputs if name not in fed]
    while open_ends:
        name = open_ends.pop()
        if name in kept:
            continue
        kept.add(name)
        open_ends += [node_of(read) for read in nodes[name].input if full_name(read) not in fed]
    part = type(definition)(versions=definition.versions, library=definition.library)
    for node in definition.node:
        if node.name in kept:
            _settled(part.node.add(), node, fed)
    return part


def _settled(new: Any, node: Any, fed: set[str]) -> None:
    new.CopyFrom(node)
    new.attr.pop("_output_shapes", None)  # what was inferred under other shapes
    new.attr.pop("_class", None)  # beside which node to be placed, that may be cut off
    # A control edge from an input says nothing: there is nothing to wait for.
    new.input[:] = [name for name in node.input if not (name[0] == "^" and f"{name[1:]}:0" in fed)]
    if node.op == "PlaceholderWithDefault":
        dtype = node.attr["dtype"].type
        new.op = "Identity"
        new.attr.clear()
        new.attr["T"].type = dtype


def _free_scope(definition: Any) -> str:
    """Return a prefix under which a graph's nodes collide with none of the graph that is being built."""
    import tensorflow as tf

    there = {operation.name for operation in tf.compat.v1.get_default_graph().get_operations()}
    return "graph" if any(node.name in there for node in definition.node) else ""


def _with_own_functions(definition: Any) -> Any:
    """Rename a graph's inner functions (bodies of loops and branches) after their content, in place.

    TensorFlow knows functions by name, process-wide, and another graph's may be called the same.
    """
    mark = hashlib.sha256(definition.library.SerializeToString(deterministic=True)).hexdigest()[
        :12
    ]
    names = {f.signature.name: f"{f.signature.name}_{mark}" for f in definition.library.function}
    for function in definition.library.function:
        function.signature.name = names[function.signature.name]
    inner = [node for function in definition.library.function for node in function.node_def]
    for node in (*definition.node, *inner):
        for attribute in node.attr.values():
            called = [attribute.func] if attribute.HasField("func") else attribute.list.func
            for reference in called:
                reference.name = names.get(reference.name, reference.name)
        node.op = names.get(node.op, node.op)
    return definition


def _make_known(library: Any) -> None:
    """Tell TensorFlow of a graph's functions: importing a graph into a function does not."""
    from tensorflow.python.eager import context

    known = context.context()
    for function in library.function:
        if not known.has_function(function.signature.name):
            known.add_function_def(function)


def _decode_weights(definition: Any) -> None:
    """Put real numbers, in place, where a graph stores weights in codes and decodes them at every call.

    No converter translates Dequantize, and TensorFlow's own optimizer leaves it, since the codes are smaller.
    """
    import tensorflow as tf

    by_name = {node.name: node for node in definition.node}
    coded = [
        node
        for node in definition.node
        if node.op == "Dequantize" and all(by_name[node_of(r)].op == "Const" for r in node.input)
    ]
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.graph_util.import_graph_def(definition, name="")
        decoded = session.run([f"{node.name}:0" for node in coded])
    for node, value in zip(coded, decoded, strict=True):
        node.op = "Const"
        del node.input[:]
        node.attr.clear()
        node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))


def _folded(graph: FrozenGraph) -> Any:
    """Return the graph with what constants decide computed beforehand, by TensorFlow's own optimizer."""
    ends = map(node_of, (*graph.inputs, *graph.outputs))
    return grappled(
        graph.definition, ends, ("constfold", "loop", "dependency", "pruning", "constfold")
    )
