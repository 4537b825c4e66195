"""A GraphDef seen as a graph: who makes a tensor, who reads it, what is constant; and edited in place."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class GraphView:
    """The nodes of one GraphDef and how they hang together.

    These hold at all times: every node is found by its name; `readers` counts data edges only, and `is_awaited` tells
    of the others; what the methods change is changed in the GraphDef itself.

    Args:
        definition: The `GraphDef`; edited in place.
    """

    def __init__(self, definition: Any) -> None:
        self.definition = definition
        self._nodes = {node.name: node for node in definition.node}
        self._readers: dict[str, list[Any]] = defaultdict(list)
        self._awaited: Counter[str] = Counter()
        for node in definition.node:
            self._note(node)

    def nodes(self, operation: str) -> list[Any]:
        """Return the nodes of one operation, as they are now."""
        return [node for node in self.definition.node if node.op == operation]

    def node(self, tensor: str) -> Any:
        """Return the node that a tensor, or a control edge, comes from."""
        return self._nodes[node_of(tensor)]

    def __contains__(self, name: str) -> bool:
        return name in self._nodes

    def is_awaited(self, node: Any) -> bool:
        """Say whether any node waits for this one by a control edge."""
        return self._awaited[node.name] > 0

    def sole_reader(self, node: Any) -> tuple[Any, int] | None:
        """Return the one node that reads what `node` gives, and at which place; None where it is not that simple.

        None too where another output than the first is read, or anything waits for `node`.
        """
        readers = self._readers[node.name]
        if len(readers) != 1 or self.is_awaited(node):
            return None
        (reader,) = readers
        places = [n for n, tensor in enumerate(reader.input) if _is_first_of(tensor, node.name)]
        return (reader, places[0]) if len(places) == 1 else None

    def maker(self, tensor: str) -> Any:
        """Return the node that makes a tensor, past any Identity."""
        node = self.node(tensor)
        while node.op == "Identity":
            node = self.node(node.input[0])
        return node

    def readers(self, node: Any) -> list[Any]:
        """Return the nodes that read what `node` gives, once for each time they do."""
        return self._readers[node.name]

    def constant(self, tensor: str) -> NDArray[Any] | None:
        """Return the value of a tensor that is constant; None of one that isn't."""
        import tensorflow as tf

        node = self.maker(tensor)
        if node.op != "Const":
            return None
        value: NDArray[Any] = tf.make_ndarray(node.attr["value"].tensor)
        return value

    def scalar(self, tensor: str) -> float | None:
        """Return the value of a constant that is one number; None of anything else."""
        value = self.constant(tensor)
        return float(value.reshape(())) if value is not None and value.size == 1 else None

    def folded(self, tensor: str) -> NDArray[Any] | None:
        """Return the value of a tensor of whole numbers that is constant, or made of constants alone."""
        node = self.maker(tensor)
        if node.op == "ConcatV2":
            parts = [self.folded(name) for name in node.input[:-1]]
            return None if any(p is None for p in parts) else np.concatenate(parts)  # type: ignore[arg-type]
        return self.constant(tensor)

    def number(self, tensor: str) -> float | None:
        """Return a scalar that is constant, or one element of a constant list."""
        node = self.maker(tensor)
        if node.op != "StridedSlice":
            return self.scalar(tensor)
        whole, start = self.constant(node.input[0]), self.scalar(node.input[1])
        is_one = node.attr["shrink_axis_mask"].i == 1
        return (
            float(whole[int(start)])
            if is_one and whole is not None and start is not None
            else None
        )

    def replace_input(self, node: Any, place: int, tensor: str) -> None:
        """Let `node` read another tensor."""
        self._readers[node.input[place].split(":")[0]].remove(node)
        node.input[place] = tensor
        self._readers[tensor.split(":")[0]].append(node)

    def redirect(self, node: Any, tensor: str) -> None:
        """Let all that read the first output of `node`, or wait for it, turn to another tensor instead."""
        for reader in list(self._readers[node.name]):
            for place, name in enumerate(reader.input):
                if _is_first_of(name, node.name):
                    self.replace_input(reader, place, tensor)
        source = node_of(tensor)
        for waiting in self.definition.node if self.is_awaited(node) else ():
            for place, name in enumerate(waiting.input):
                if name == f"^{node.name}":
                    waiting.input[place] = f"^{source}"
                    self._awaited[source] += 1
        del self._awaited[node.name]

    def detach(self, node: Any) -> None:
        """Let `node` read nothing more: nothing reads it, and it is about to be left out."""
        for name in node.input:
            if name.startswith("^"):
                self._awaited[name[1:]] -= 1
            else:
                self._readers[node_of(name)].remove(node)
        del node.input[:]

    def stop_waiting(self, node: Any, edge: str) -> None:
        """Take out a control edge (``^a``) of `node`."""
        node.input.remove(edge)
        self._awaited[edge[1:]] -= 1

    def insert_behind(
        self, node: Any, name: str, operation: str, others: Sequence[str], **types: int
    ) -> Any:
        """Return a new node that reads `node`, and then `others`, and that all turn to who read `node` before."""
        added = self.add(name, operation, others, **types)
        self.redirect(node, added)
        inserted = self._nodes[added]
        inserted.input.insert(0, node.name)
        self._readers[node.name].append(inserted)
        return inserted

    def operands(self, node: Any, operation: str) -> tuple[Any, str] | None:
        """Return (the maker of one operand that is an `operation`, the other operand) of a commutative node."""
        for mine, other in ((0, 1), (1, 0)):
            made = self.maker(node.input[mine])
            if made.op == operation:
                return made, str(node.input[other])
        return None

    def add(self, name: str, operation: str, inputs: Sequence[str], **types: int) -> str:
        """Add a node; return the name of the tensor that it gives.

        Args:
            name: Its name; a number goes behind it where it is taken.
            operation: Its operation.
            inputs: The tensors that it reads.
            **types: Its type attributes, as TensorFlow's enum has them.
        """
        unique, number = name, 1
        while unique in self._nodes:
            unique, number = f"{name}_{number}", number + 1
        node = self.definition.node.add(name=unique, op=operation)
        node.input.extend(inputs)
        for attribute, value in types.items():
            node.attr[attribute].type = value
        self._nodes[unique] = node
        self._note(node)
        return unique

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a constant; return the name of its tensor."""
        import tensorflow as tf

        tensor = tf.make_tensor_proto(value)
        added = self.add(name, "Const", (), dtype=tensor.dtype)
        self._nodes[added].attr["value"].tensor.CopyFrom(tensor)
        return added

    def become(self, node: Any, operation: str, inputs: Sequence[str], **types: int) -> None:
        """Make `node` another operation on other inputs; who reads it does not notice."""
        read = list(inputs)
        self.detach(node)
        node.op = operation
        node.input[:] = read
        node.attr.clear()
        for attribute, value in types.items():
            node.attr[attribute].type = value
        self._note(node)

    def _note(self, node: Any) -> None:
        for name in node.input:
            if name.startswith("^"):
                self._awaited[name[1:]] += 1
            else:
                self._readers[name.split(":")[0]].append(node)


def attribute(node: Any, name: str, kind: str, default: Any) -> Any:
    """Return the value of a node's attribute, `default` where it was left out.

    Looking a missing one up in the node's own map would put it there, empty, and TensorFlow refuses empty ones.

    Args:
        node: A `NodeDef`.
        name: The attribute's.
        kind: The field of `AttrValue` that it lies in (``b``, ``f``, ``i``, ``s``, ``type``).
        default: What TensorFlow takes it for where it is left out.
    """
    found = node.attr.get(name)
    return default if found is None else getattr(found, kind)


def node_of(tensor: str) -> str:
    """Return the name of the node that a tensor, or a control edge, comes from."""
    return tensor.removeprefix("^").split(":")[0]


def full_name(tensor: str) -> str:
    """Return a tensor's name as TensorFlow writes it in full: ``x`` is ``x:0``; a control edge is left."""
    return tensor if ":" in tensor or tensor.startswith("^") else f"{tensor}:0"


def _is_first_of(tensor: str, name: str) -> bool:
    """Say whether a tensor is the first output of the node called `name`."""
    return tensor in (name, f"{name}:0")


def array(value: float, dtype: int) -> NDArray[Any]:
    """Return a scalar of a dtype given as TensorFlow's enum."""
    import tensorflow as tf

    return np.asarray(value, tf.as_dtype(dtype).as_numpy_dtype)
