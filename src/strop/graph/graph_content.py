"""What a graph computes, as a digest: the same for two exports of one model, whose bytes and names differ."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from strop.core import digest
from strop.graph.frozen import FrozenGraph
from strop.graph.view import node_of

# Where a node was made and may be placed, what its engine inferred or was told: nothing of it changes an answer.
_CIRCUMSTANCES = frozenset(
    {"_class", "_gradient_op_type", "_output_shapes", "config_proto", "container", "shared_name"}
)


def content_digest(graph: FrozenGraph) -> str:
    """Return the digest of a frozen graph: operations, constants and edges, whatever nodes and functions are called.

    TensorFlow numbers names as they come in a process and writes functions in any order, so that no two exports of
    one model are the same bytes.
    """
    functions = {
        function.signature.name: function for function in graph.definition.library.function
    }
    nodes = {node.name: node for node in graph.definition.node}
    places = {name.split(":")[0]: number for number, name in enumerate(graph.inputs)}
    main = _Walk(nodes, places, graph.outputs, functions)
    return digest.of_value([main.lines, [main.edge(name) for name in graph.outputs]])


class _Walk:
    """The nodes that some edges depend on, numbered in the order in which they are met from there.

    Attributes:
        lines: One for each node: its operation, its attributes, and its inputs by number.
    """

    def __init__(
        self,
        nodes: Mapping[str, Any],
        places: Mapping[str, int],
        ends: Sequence[str],
        functions: Mapping[str, Any],
    ) -> None:
        self._places, self._functions = places, functions
        self._numbers: dict[str, int] = {}
        met: list[Any] = []
        waiting = [node_of(end) for end in reversed(ends)]
        while waiting:
            name = waiting.pop()
            if name in places or name in self._numbers:
                continue
            self._numbers[name] = len(met)
            met.append(nodes[name])
            waiting += [node_of(read) for read in reversed(nodes[name].input)]
        self.lines = [
            [node.op, self._attributes(node), [self.edge(read) for read in node.input]]
            for node in met
        ]

    def edge(self, read: str) -> list[object]:
        """Return what is read, an input by its place and anything else by its node's number, and which of its outputs."""
        name, _, output = read.removeprefix("^").partition(":")
        kind = "^" if read.startswith("^") else ""
        if name in self._places:
            return [kind, "input", self._places[name]]
        return [kind, self._numbers[name], output or "0"]

    def _attributes(self, node: Any) -> dict[str, object]:
        return {
            name: self._value(value)
            for name, value in node.attr.items()
            if name not in _CIRCUMSTANCES
        }

    def _value(self, value: Any) -> object:
        called = [value.func] if value.HasField("func") else value.list.func
        if called:
            return [self._of_function(reference.name) for reference in called]
        # Constants may be large.
        return hashlib.sha256(value.SerializeToString(deterministic=True)).hexdigest()

    def _of_function(self, name: str) -> str:
        function = self._functions[name]
        places = {given.name: place for place, given in enumerate(function.signature.input_arg)}
        ends = [function.ret[given.name] for given in function.signature.output_arg]
        ends += [f"^{function.control_ret[name]}" for name in sorted(function.control_ret)]
        nodes = {node.name: node for node in function.node_def}
        inner = _Walk(nodes, places, ends, self._functions)
        return digest.of_value([inner.lines, [inner.edge(end) for end in ends]])
