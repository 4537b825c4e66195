"""What in a GraphDef is decided by constants alone, and its values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.graph.view import GraphView, node_of

# Larger values, such as the weights of a layer, are what they are and need no computing.
_MOST_NODES = 200


class Constants:
    """The values of tensors that depend on nothing but constants, each computed once, when it is asked for.

    Args:
        view: The graph; what is added to it later is seen too.
    """

    def __init__(self, view: GraphView) -> None:
        self._view = view
        self._values: dict[str, NDArray[Any] | None] = {}

    def value(self, tensor: str) -> NDArray[Any] | None:
        """Return the value of a tensor; None where it depends on more than constants, or on chance or state."""
        if tensor not in self._values:
            plain = self._view.constant(tensor)
            self._values[tensor] = self._computed(tensor) if plain is None else plain
        return self._values[tensor]

    def _computed(self, tensor: str) -> NDArray[Any] | None:
        import tensorflow as tf

        names = self._ancestors(tensor)
        if names is None:
            return None
        part = type(self._view.definition)(versions=self._view.definition.versions)
        part.node.extend(self._view.node(name) for name in sorted(names))
        with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
            tf.graph_util.import_graph_def(part, name="")
            return np.asarray(session.run(tensor if ":" in tensor else f"{tensor}:0"))

    def _ancestors(self, tensor: str) -> set[str] | None:
        """Return the nodes that a tensor depends on where all of them always give the same, and are not many."""
        found: set[str] = set()
        open_ends = [tensor]
        while open_ends:
            name = node_of(open_ends.pop())
            if name in found:
                continue
            node = self._view.node(name)
            found.add(name)
            if len(found) > _MOST_NODES or not _always_gives_the_same(node):
                return None
            open_ends += node.input
        return found


def _always_gives_the_same(node: Any) -> bool:
    """Say whether an operation gives what its inputs decide: it is no input, keeps no state, draws no lots."""
    from tensorflow.python.framework import op_def_registry

    if node.op.startswith("Placeholder"):
        return False
    known = op_def_registry.get(node.op)
    return known is not None and not known.is_stateful
