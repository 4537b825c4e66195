"""A GraphDef seen as a graph: who makes a tensor, who reads it, what is constant; and edited in place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class GraphView:
    """The nodes of one GraphDef and how they hang together.

    These hold at all times: every node is found by its name; `readers` counts data edges only; what the methods
    change is changed in the GraphDef itself.

    Args:
        definition: The `GraphDef`; edited in place.
    """

    def __init__(self, definition: Any) -> None:
        self.definition = definition
        self._nodes = {node.name: node for node in definition.node}
        self._readers: dict[str, list[Any]] = defaultdict(list)
        for node in definition.node:
            self._note(node)

    def nodes(self, operation: str) -> list[Any]:
        """Return the nodes of one operation, as they are now."""
        return [node for node in self.definition.node if node.op == operation]

    def maker(self, tensor: str) -> Any:
        """Return the node that makes a tensor, past any Identity."""
        node = self._nodes[tensor.removeprefix("^").split(":")[0]]
        while node.op == "Identity":
            node = self._nodes[node.input[0].removeprefix("^").split(":")[0]]
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
        for name in node.input:
            if not name.startswith("^"):
                self._readers[name.split(":")[0]].remove(node)
        node.op = operation
        node.input[:] = list(inputs)
        node.attr.clear()
        for attribute, value in types.items():
            node.attr[attribute].type = value
        self._note(node)

    def _note(self, node: Any) -> None:
        for name in node.input:
            if not name.startswith("^"):
                self._readers[name.split(":")[0]].append(node)


def array(value: float, dtype: int) -> NDArray[Any]:
    """Return a scalar of a dtype given as TensorFlow's enum."""
    import tensorflow as tf

    return np.asarray(value, tf.as_dtype(dtype).as_numpy_dtype)
