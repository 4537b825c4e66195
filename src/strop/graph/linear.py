"""Linear layers of a GraphDef: which operand is the kernel, and which of its axes number the channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from strop.graph.view import attribute


@dataclass(frozen=True)
class Linear:
    """How an operation with a kernel is laid out.

    Attributes:
        data: The place of the operand that is the data.
        output_axes: The kernel's axes that number the output channels, the slowest first.
        input_axis: The kernel's axis that numbers the input channels (of a group).
        rank: The rank of what it gives.
        is_plain: Whether each output sees the same offset everywhere, where there is no padding.
    """

    data: int
    output_axes: tuple[int, ...]
    input_axis: int
    rank: int
    is_plain: bool = True


KERNEL = 1
"""The place of the kernel among the operands."""

_CONVOLUTIONS = {
    "Conv2D": Linear(0, (3,), 2, 4),
    "DepthwiseConv2dNative": Linear(0, (2, 3), 2, 4),
    "Conv3D": Linear(0, (4,), 3, 5),
    # Where its strides are longer than its kernel some outputs see nothing.
    "Conv2DBackpropInput": Linear(2, (2,), 3, 4, is_plain=False),
}


def linear(node: Any) -> Linear | None:
    """Return how a node is laid out, if it is a linear layer of a kind that is known."""
    if node.op != "MatMul":
        return _CONVOLUTIONS.get(node.op)
    if attribute(node, "transpose_a", "b", default=False):
        return None
    rows, columns = (1, 0) if attribute(node, "transpose_b", "b", default=False) else (0, 1)
    return Linear(0, (columns,), rows, 2)


def channel_axis(node: Any, layer: Linear) -> int:
    """Return the axis of a layer's data, and of what it gives, that numbers the channels."""
    is_first = attribute(node, "data_format", "s", b"NHWC").startswith(b"NC")
    return 1 if is_first else layer.rank - 1


def pads(node: Any, kernel_shape: tuple[int, ...]) -> bool:
    """Say whether a layer reads zeros around its data at any place."""
    if node.op == "MatMul":
        return False
    spatial = kernel_shape[: len(kernel_shape) - 2]
    padding = attribute(node, "padding", "s", b"SAME")
    if padding == b"EXPLICIT":
        return any(node.attr["explicit_paddings"].list.i)
    return padding != b"VALID" and any(size > 1 for size in spatial)
