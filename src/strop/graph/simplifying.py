"""What all rewritings of a frozen graph have in common: the file read, its ends kept, and what nothing needs left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from strop.core.contracts import Context, Pass, Unchanged
from strop.core.model import Form, Model
from strop.core.signature import Signature, TensorSpec
from strop.graph.frozen import FrozenGraph, read_graph
from strop.graph.graph_content import content_digest
from strop.graph.grappler import grappled
from strop.graph.quiet import quiet
from strop.graph.view import full_name, node_of

Rewriting = Callable[[Any, "Ends"], bool]

STEERING = frozenset(
    {
        "Enter", "Exit", "LoopCond", "Merge", "NextIteration", "RefEnter", "RefExit", "RefMerge",
        "RefNextIteration", "RefSwitch", "Switch",
    }
)  # fmt: skip
"""TensorFlow 1's loops and branches: which nodes run depends on these, and on who waits for whom."""


class Ends:
    """The tensors of a graph that its users know by name.

    Attributes:
        inputs: Names in full (``x:0``), in the binding's order.
        outputs: The same.
        nodes: The names of the nodes that they come from.
    """

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.inputs = [full_name(name) for name in inputs]
        self.outputs = [full_name(name) for name in outputs]
        self.nodes = {name.split(":")[0] for name in (*self.inputs, *self.outputs)}

    @classmethod
    def of(cls, model: Model) -> Ends:
        """Return those of a model of form ``graph_def``."""
        binding = model.binding
        return cls([b.name for b in binding.inputs], [b.name for b in binding.outputs])


def simplified(
    step: Pass, model: Model, context: Context, rewrite: Rewriting, *, nothing: str
) -> Model | Unchanged:
    """Return a model whose graph was rewritten; its inputs and outputs keep their names.

    Args:
        step: The pass that asks.
        model: Of form ``graph_def``.
        context: Gives the folder to write to.
        rewrite: Edits a GraphDef in place, and says whether it did.
        nothing: What to answer where it did not.
    """
    definition, ends = read_graph(model.path), Ends.of(model)
    with quiet():
        _feed_by_placeholders(definition, ends, model.signature)
        if not rewrite(definition, ends):
            return Unchanged(nothing)
    leave_out_unneeded(definition, ends)
    path = context.workspace / "model.pb"
    path.write_bytes(definition.SerializeToString(deterministic=True))
    return model.derive(step, Form.GRAPH_DEF, path)


def simplified_by_grappler(
    step: Pass, model: Model, context: Context, optimizers: Sequence[str], *, nothing: str
) -> Model | Unchanged:
    """Return a model whose graph some of Grappler's optimizers rewrote; else as `simplified`."""

    def rewrite(definition: Any, ends: Ends) -> bool:
        return regrappled(definition, ends, optimizers)

    return simplified(step, model, context, rewrite, nothing=nothing)


def _feed_by_placeholders(definition: Any, ends: Ends, signature: Signature) -> None:
    """Make placeholders, in place, of nodes within a graph that are named as its inputs: what is before them is cut off.

    All get the signature's sizes, which rewritings may go by.
    A tensor that is not the first of its node stays what it is, and is fed as it is.
    """
    import tensorflow as tf

    nodes = {node.name: node for node in definition.node}
    for name, spec in zip(ends.inputs, signature.inputs, strict=True):
        node = nodes[node_of(name)]
        if node.op == "Placeholder":
            _size(node, spec)
        elif name.endswith(":0") and node.op != "PlaceholderWithDefault":
            node.op = "Placeholder"
            del node.input[:]
            node.attr.clear()
            node.attr["dtype"].type = tf.as_dtype(
                "string" if spec.dtype == "str" else spec.dtype
            ).as_datatype_enum
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(list(spec.shape)).as_proto())


def _size(placeholder: Any, spec: TensorSpec) -> None:
    """Give a placeholder the signature's sizes but for the batch: what its owner wrote there is nobody's promise."""
    import tensorflow as tf

    written = placeholder.attr["shape"].shape if "shape" in placeholder.attr else None
    known = (
        written is not None and not written.unknown_rank and len(written.dim) == len(spec.shape)
    )
    if spec.shape:
        batch = written.dim[0].size if known and written is not None else -1
        shape = tf.TensorShape([None if batch < 0 else batch, *spec.shape[1:]])
        placeholder.attr["shape"].shape.CopyFrom(shape.as_proto())


def regrappled(definition: Any, ends: Ends, optimizers: Sequence[str]) -> bool:
    """Rewrite a graph in place by some of Grappler's optimizers; say whether what it is made of changed.

    What has more nodes afterwards is left as it was: Grappler writes x + x as 2·x, with a node for the 2.
    """
    found = grappled(definition, sorted(ends.nodes), optimizers)
    leave_out_unneeded(found, ends)
    if len(found.node) > len(needed_by(definition, [*ends.outputs, *ends.inputs])):
        return False
    before, after = (
        content_digest(FrozenGraph(graph, tuple(ends.inputs), tuple(ends.outputs)))
        for graph in (definition, found)
    )
    definition.CopyFrom(found)
    return before != after


def leave_out_unneeded(definition: Any, ends: Ends) -> int:
    """Take out, in place, the nodes that no output needs; return how many there were.

    Inputs stay, needed or not: they are fed by name.
    """
    needed = needed_by(definition, [*ends.outputs, *ends.inputs])
    before = len(definition.node)
    kept = [node for node in definition.node if node.name in needed]
    if len(kept) < before:
        part = type(definition)(node=kept)
        del definition.node[:]
        definition.node.MergeFrom(part.node)
    return before - len(definition.node)


def needed_by(definition: Any, tensors: Sequence[str]) -> set[str]:
    """Return the names of the nodes that some tensors depend on, by data or control."""
    nodes = {node.name: node for node in definition.node}
    found: set[str] = set()
    open_ends = list(tensors)
    while open_ends:
        name = node_of(open_ends.pop())
        if name not in found:
            found.add(name)
            open_ends += nodes[name].input
    return found


def operations_of(model: Model) -> dict[str, int]:
    """Return how many nodes of each operation a frozen graph has, functions left aside."""
    return dict(Counter(node.op for node in read_graph(model.path).node))
