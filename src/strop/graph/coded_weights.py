"""Weights that a taught graph holds as codes: a kernel is ``cast(codes) · step``, a step for each output channel.

Converters and rewritings take them for what they are or for real numbers, as they like. Here they are found, kept from
being computed beforehand, and told apart from kernels that are real numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.graph.view import GraphView

ROUNDING = "FakeQuantWithMinMaxVars"
"""The operation that rounds a tensor in a taught graph."""

_WALL = "strop_wall"
_FLOAT = 1  # TensorFlow's DT_FLOAT
# TensorFlow's optimizer leaves nodes with this attribute as they are.
_LEFT_BY_GRAPPLER = "_grappler_do_not_remove"
_LINEAR = frozenset(
    {"BatchMatMulV2", "Conv2D", "Conv2DBackpropInput", "Conv3D", "DepthwiseConv2dNative", "MatMul"}
)
# What the LiteRT converter makes a part of the kernel before it, or passes a range through.
_BEHIND_KERNELS = frozenset(
    {
        "Add", "AddV2", "BatchToSpaceND", "BiasAdd", "ExpandDims", "Identity", "Relu", "Relu6", "Reshape", "Squeeze",
        "Sub", "Transpose",
    }
)  # fmt: skip
# What gives codes on the grid that it takes them on.
_ON_ONE_GRID = frozenset(
    {
        "AvgPool", "BatchToSpaceND", "ConcatV2", "ExpandDims", "Identity", "Max", "MaxPool", "MirrorPad", "Pad", "PadV2",
        "Relu", "Relu6", "Reshape", "ResizeBilinear", "ResizeNearestNeighbor", "Slice", "SpaceToBatchND", "Squeeze",
        "StridedSlice", "Tile", "Transpose",
    }
)  # fmt: skip
_BEFORE_KERNELS = frozenset({"ExpandDims", "Identity", "Reshape", "Squeeze", "Transpose"})


@dataclass(frozen=True)
class CodedWeights:
    """A kernel in codes.

    Attributes:
        codes: Of int8, in the layout of TensorFlow's kernels.
        steps: What one code is worth; 1 along all axes but those of output channels.
    """

    codes: NDArray[np.int8]
    steps: NDArray[np.float32]

    @property
    def rows(self) -> NDArray[np.int8]:
        """The codes, a row for each output channel."""
        axes = [axis for axis, size in enumerate(self.steps.shape) if size > 1]
        front = np.moveaxis(self.codes, axes, range(len(axes)))
        channels = math.prod(front.shape[: len(axes)])
        return front.reshape(channels, -1)


def coded_weights_of(definition: Any) -> list[CodedWeights]:
    """Return all kernels of a graph that are held as codes."""
    return [kernel for _, kernel in _decodings(GraphView(definition))]


def write_decoded(definition: Any) -> None:
    """Put real numbers, in place, where a graph decodes codes: the LiteRT converter computes only small ones beforehand."""
    view = GraphView(definition)
    for node, kernel in _decodings(view):
        decoded = view.add_constant(f"{node.name}/decoded", kernel.codes * kernel.steps)
        view.become(node, "Identity", (decoded,), T=_FLOAT)


def keep_codes(definition: Any) -> None:
    """Have TensorFlow's graph optimizer leave the codes as they are, in place: it computes what constants decide."""
    view = GraphView(definition)
    for node in view.nodes("Cast"):
        if _codes_of(view, node.name) is not None:
            node.attr[_LEFT_BY_GRAPPLER].b = True


def wall_off(definition: Any) -> None:
    """Put an operation, in place, before roundings that the LiteRT converter has no ear for.

    A layer of real numbers between two roundings it quantizes, weights and all; and codes that are to be brought onto
    another grid it takes for ones that are on both, and fails. It does not know how to round a sine. `is_wall` tells
    which to take out again.
    """
    view = GraphView(definition)
    walled = [rounding for rounding in view.nodes(ROUNDING) if _is_regridding(view, rounding)]
    for node in [node for node in definition.node if node.op in _LINEAR]:
        if _is_of_real_numbers(view, node):
            walled += _roundings_behind(view, node)
    for rounding in {node.name: node for node in walled}.values():
        view.replace_input(rounding, 0, view.add(_WALL, "Sin", (rounding.input[0],), T=_FLOAT))


def is_wall(name: str) -> bool:
    """Say whether a tensor, by its name, is what `wall_off` put in."""
    return name.split("/")[-1].startswith(_WALL)


def roundings_of(definition: Any) -> list[Rounding]:
    """Return what tensors are rounded to in a taught graph."""
    view = GraphView(definition)
    found = []
    for node in view.nodes(ROUNDING):
        low, high = (view.scalar(name) for name in node.input[1:3])
        if low is not None and high is not None:
            found.append(Rounding(low, high, node.attr["num_bits"].i or 8))
    return found


def narrow(definition: Any) -> None:
    """Have all be rounded to 8 bits, in place, within the same ranges."""
    for node in GraphView(definition).nodes(ROUNDING):
        node.attr["num_bits"].i = 8


@dataclass(frozen=True)
class Rounding:
    """The grid of a tensor.

    Attributes:
        low: The smallest value that has a code.
        high: The largest.
        bits: Width of a code.
    """

    low: float
    high: float
    bits: int

    @property
    def step(self) -> float:
        """The distance between codes."""
        return (self.high - self.low) / (2.0**self.bits - 1)


def _decodings(view: GraphView) -> list[tuple[Any, CodedWeights]]:
    """Return the nodes that decode codes, with these."""
    found = []
    for node in view.nodes("Mul"):
        for decoded, other in (node.input, reversed(list(node.input))):
            codes, steps = _codes_of(view, decoded), view.constant(other)
            if codes is not None and steps is not None:
                found.append((node, CodedWeights(codes, steps)))
    return found


def _codes_of(view: GraphView, tensor: str) -> NDArray[np.int8] | None:
    """Return the codes that a tensor is the cast of; None where it is something else."""
    node = view.maker(tensor)
    codes = view.constant(node.input[0]) if node.op == "Cast" else None
    return codes if codes is not None and codes.dtype == np.int8 else None


def _is_of_real_numbers(view: GraphView, node: Any) -> bool:
    """Say whether one operand of a product is a constant that is not held as codes."""
    return any(_is_real_constant(view, name) for name in _operands(node))


def _operands(node: Any) -> Sequence[str]:
    # A transposed convolution reads the sizes of its result first, then its kernel.
    return list(node.input[1:2]) if node.op == "Conv2DBackpropInput" else list(node.input[:2])


def _is_real_constant(view: GraphView, tensor: str) -> bool:
    node = view.maker(tensor)
    while node.op in _BEFORE_KERNELS:
        node = view.maker(node.input[0])
    return bool(node.op == "Const")


def _roundings_behind(view: GraphView, node: Any) -> Iterator[Any]:
    for reader in view.readers(node):
        if reader.op == ROUNDING:
            yield reader
        elif reader.op in _BEHIND_KERNELS:
            yield from _roundings_behind(view, reader)


def _is_regridding(view: GraphView, rounding: Any) -> bool:
    """Say whether what is rounded is on another grid already."""
    open_ends = [rounding.input[0]]
    while open_ends:
        node = view.maker(open_ends.pop())
        if node.op == ROUNDING and _ends(view, node) != _ends(view, rounding):
            return True
        if node.op in _ON_ONE_GRID:
            open_ends += [name for name in node.input if not name.startswith("^")]
    return False


def _ends(view: GraphView, rounding: Any) -> list[float | None]:
    return [view.scalar(name) for name in rounding.input[1:3]]
