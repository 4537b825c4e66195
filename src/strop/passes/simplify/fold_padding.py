"""Zeros around the data, written into the convolution that reads them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from strop.core.contracts import Context, Exactness, Unchanged
from strop.core.model import Model
from strop.passes.simplify import Rewriting

if TYPE_CHECKING:
    from strop.graph.linear import Linear
    from strop.graph.simplifying import Ends
    from strop.graph.view import GraphView

Around = tuple[tuple[int, int], ...]
"""Zeros before and behind the data, an axis each."""

_PADS = frozenset({"Pad", "PadV2"})


@final
@dataclass(frozen=True)
class FoldPadding(Rewriting):
    """Let a convolution pad by itself, where zeros are written around its data before it.

    Before:  x ── Pad(0, 1) ── Conv2D(3×3, stride 2, VALID)
    After:   x ── Conv2D(3×3, stride 2, SAME)

    Exporters of Keras write paddings out so (MobileNet, ResNet). Where the zeros are not those of SAME, a Conv2D takes
    them as explicit ones; other kinds of convolution have no such spelling on every engine and stay.
    """

    exactness = Exactness.ROUNDING
    never_grows = True

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the graph whose convolutions pad by themselves."""
        from strop.graph.simplifying import simplified

        nothing = "no convolution reads data with zeros around it"
        return simplified(self, model, context, _fold, nothing=nothing)


def _fold(definition: Any, ends: Ends) -> bool:
    from strop.graph.linear import KERNEL, linear
    from strop.graph.spelling import inferred_shapes
    from strop.graph.view import GraphView

    view = GraphView(definition)
    shapes = functools.cache(inferred_shapes(definition))
    found = 0
    for node in list(definition.node):
        layer = linear(node)
        if layer is None or layer.rank == 2 or not layer.is_plain:
            continue
        pad = view.node(node.input[layer.data])
        kernel = view.constant(node.input[KERNEL])
        if kernel is None or pad.name in ends.nodes or view.sole_reader(pad) is None:
            continue
        around = _zeros_around(view, pad, node, layer)
        if around is not None and _write(node, layer, kernel.shape, around, shapes(pad.input[0])):
            view.redirect(pad, pad.input[0])
            view.detach(pad)
            found += 1
    return found > 0


def _zeros_around(view: GraphView, pad: Any, node: Any, layer: Linear) -> Around | None:
    """Return the zeros that a node writes around the height and width (and depth) of its data, and nothing else."""
    from strop.graph.linear import channel_axis

    if pad.op not in _PADS or any(name.startswith("^") for name in pad.input):
        return None
    if pad.op == "PadV2" and view.scalar(pad.input[2]) != 0:
        return None
    widths = view.folded(pad.input[1])
    if widths is None or widths.shape != (layer.rank, 2) or (widths < 0).any():
        return None
    channels = channel_axis(node, layer)
    if widths[0].any() or widths[channels].any():
        return None
    return tuple(
        (int(before), int(behind))
        for axis, (before, behind) in enumerate(widths)
        if axis not in (0, channels)
    )


def _write(
    node: Any,
    layer: Linear,
    kernel: Sequence[int],
    around: Around,
    shape: Sequence[int | None] | None,
) -> bool:
    """Let a convolution without padding of its own pad by itself; say whether it can."""
    from strop.graph.linear import channel_axis
    from strop.graph.view import attribute

    padding = attribute(node, "padding", "s", b"SAME")
    if padding != b"VALID":
        return False
    axes = [axis for axis in range(1, layer.rank) if axis != channel_axis(node, layer)]
    strides = [node.attr["strides"].list.i[axis] for axis in axes]
    dilated = list(node.attr["dilations"].list.i) if "dilations" in node.attr else []
    dilations = [dilated[axis] for axis in axes] if dilated else [1] * len(axes)
    sizes = [None if shape is None else shape[axis] for axis in axes]
    wanted = [
        _same(size, window, stride, dilation)
        for size, window, stride, dilation in zip(sizes, kernel, strides, dilations, strict=False)
    ]
    if list(around) == wanted:
        node.attr["padding"].s = b"SAME"
        return True
    if node.op != "Conv2D":
        return False
    explicit = [(0, 0)] * layer.rank
    for axis, zeros in zip(axes, around, strict=True):
        explicit[axis] = zeros
    node.attr["padding"].s = b"EXPLICIT"
    node.attr["explicit_paddings"].list.i[:] = [count for zeros in explicit for count in zeros]
    return True


def _same(size: int | None, window: int, stride: int, dilation: int) -> tuple[int, int] | None:
    """Return the zeros that SAME writes along an axis; None where they depend on a size that is not known.

    Example:
        >>> _same(224, 3, 2, 1), _same(None, 3, 1, 1), _same(None, 3, 2, 1)
        ((0, 1), (1, 1), None)
    """
    if size is None:
        if stride > 1:
            return None
        size = 1
    given = -(-size // stride)
    total = max((given - 1) * stride + (window - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2
