"""Batch normalization, and other maps of channels, folded into the weights of the linear layer beside them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from strop.core.contracts import Context, Exactness, Unchanged
from strop.core.model import Model
from strop.numerics.folding import (
    Affine,
    answer_to_offset,
    batch_normalization,
    scale_inputs,
    scale_outputs,
)
from strop.passes.simplify import Rewriting

if TYPE_CHECKING:
    from strop.graph.constants import Constants
    from strop.graph.linear import Linear
    from strop.graph.simplifying import Ends
    from strop.graph.view import GraphView

_NORMALIZATIONS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
_PADS = frozenset({"Pad", "PadV2", "MirrorPad"})
_FLOATS = frozenset({"float16", "float32", "float64"})
_KEPT = Affine.of()  # what a map is that changes nothing


@final
@dataclass(frozen=True)
class FoldBatchNorm(Rewriting):
    """Fold maps of channels into the convolution or matrix product before or behind them.

    Before:  x ── Conv2D(W) ── BiasAdd(b) ── FusedBatchNormV3(γ, β, μ, σ²) ── ReLU
    After:   x ── Conv2D(W·s) ── BiasAdd(b·s + o) ── ReLU,  s = γ/√(σ² + ε),  o = β − μ·s

    So are sums, differences, products and quotients with constants that differ by channel at most, in whose
    spelling Keras and older exporters leave batch normalization. Scales go through a padding; a map before the
    layer goes into it where no padding would tell the difference. A kernel that several layers share is copied.
    """

    exactness = Exactness.ROUNDING
    never_grows = True

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the graph with the maps folded in."""
        from strop.graph.simplifying import simplified

        nothing = "no convolution or matrix product has a map of channels beside it"
        return simplified(self, model, context, fold, nothing=nothing)


def fold(definition: Any, ends: Ends) -> bool:
    """Fold what can be folded, in place; say whether there was anything."""
    from strop.graph.constants import Constants
    from strop.graph.linear import linear
    from strop.graph.spelling import inferred_shapes
    from strop.graph.view import GraphView

    view = GraphView(definition)
    folding = _Folding(view, Constants(view), ends, functools.cache(inferred_shapes(definition)))
    layers = [(node, linear(node)) for node in definition.node]
    return sum(folding.into(node, layer) for node, layer in layers if layer) > 0


@dataclass(frozen=True)
class _Link:
    """A node of the chain behind or before a layer: what it does to channels; None for a padding."""

    node: Any
    data: int
    map: Affine | None


@dataclass(frozen=True)
class _Plan:
    """What is to go into one layer.

    Attributes:
        before: The maps before it, the first first.
        behind: The maps behind it, in segments with a padding between each two; the first is right behind the layer.
    """

    before: Sequence[_Link]
    behind: Sequence[Sequence[_Link]]

    @property
    def is_worth_it(self) -> bool:
        """Whether anything would be gone, or spelled more simply, than a bias for each segment."""
        plain = all(
            [link.node.op for link in segment if link.node.op != "Identity"] in ([], ["BiasAdd"])
            for segment in self.behind
        )
        return bool(self.before) or not plain

    @property
    def taken(self) -> Affine:
        """The map of the input channels."""
        return _composed(self.before)

    def given(self, extra: Affine) -> tuple[Affine, list[Affine]]:
        """Return the map of the output channels that goes into the kernel, and what is left to add in each segment.

        Args:
            extra: What the maps before the layer add to its outputs.
        """
        scale, left = _KEPT, []
        for place, segment in reversed(list(enumerate(self.behind))):
            whole = _composed(segment) if place else extra.then(_composed(segment))
            left.append(Affine(_KEPT.scale, whole.offset * scale.scale))
            scale = Affine(whole.scale * scale.scale, _KEPT.offset)
        return scale, left[::-1]


def _composed(links: Sequence[_Link]) -> Affine:
    maps = [link.map for link in links if link.map]
    return functools.reduce(Affine.then, maps, _KEPT)


@dataclass(frozen=True)
class _Folding:
    """One graph being folded; `shapes` tells a tensor's shape as it was before."""

    view: GraphView
    constants: Constants
    ends: Ends
    shapes: Any

    def into(self, node: Any, layer: Linear) -> bool:
        """Fold what lies beside one layer into its weights; say whether anything did."""
        from strop.graph.linear import KERNEL

        kernel = self.view.constant(node.input[KERNEL])
        if kernel is None or kernel.dtype.name not in _FLOATS or not kernel.size:
            return False
        behind = self._behind(node, layer, kernel)
        before = self._before(node, layer, kernel)
        # The nearest maps may go in where all of them can't.
        plans = [_Plan(before[skipped:], behind) for skipped in range(len(before) + 1)]
        return any(
            plan.is_worth_it and self._carry_out(plan, node, layer, kernel) for plan in plans
        )

    def _carry_out(self, plan: _Plan, node: Any, layer: Linear, kernel: NDArray[Any]) -> bool:
        """Rewrite a layer and what is beside it; say whether that can be done."""
        from strop.graph.linear import KERNEL, channel_axis, pads

        taken, output = plan.taken, layer.output_axes
        is_even = layer.is_plain and not pads(node, kernel.shape) and not _has_pads(plan.before)
        if taken.shifts and not is_even:
            return False
        groups = max(len(taken.scale), len(taken.offset)) // kernel.shape[layer.input_axis] or 1
        groups = groups if node.op == "Conv2D" else 1
        added = answer_to_offset(
            kernel, taken.offset, layer.input_axis, output_axes=output, groups=groups
        )
        scaled = scale_inputs(
            kernel, taken.scale, layer.input_axis, output_axis=output[-1], groups=groups
        )
        given, left = plan.given(Affine.of(offset=added) if taken.shifts else _KEPT)
        with np.errstate(over="ignore", invalid="ignore"):
            weights = scale_outputs(scaled, given.scale, output).astype(kernel.dtype)
            offsets = [one.offset.astype(kernel.dtype) for one in left]
        if not all(np.isfinite(array).all() for array in (weights, *offsets)):
            return False
        size = int(np.prod([kernel.shape[axis] for axis in output]))
        biases = [np.broadcast_to(o, size) if o.any() else None for o in offsets]
        is_changed = not np.array_equal(weights, kernel)
        if self._adds_nodes(plan, node, biases, is_changed=is_changed):
            return False
        if biases[0] is not None and not plan.behind[0] and node.name in self.ends.nodes:
            return False  # a new node would have to take its name
        if is_changed:
            name = f"{self.view.maker(node.input[KERNEL]).name}/folded"
            self.view.replace_input(node, KERNEL, self.view.add_constant(name, weights))
        for link in plan.before:
            if link.map:
                self._bypass(link)
        is_first = layer.rank > 2 and channel_axis(node, layer) == 1
        for segment, bias in zip(plan.behind, biases, strict=True):
            self._spell(segment, node, bias, is_first=is_first)
        return True

    def _spell(
        self, segment: Sequence[_Link], layer: Any, bias: NDArray[Any] | None, *, is_first: bool
    ) -> None:
        """Write a segment as the addition of `bias`; without one, as nothing."""
        kind = layer.attr["T"].type
        for link in segment[:-1]:
            self._bypass(link)
        if bias is None:
            for link in segment[-1:]:
                if link.node.name in self.ends.nodes:
                    self.view.become(link.node, "Identity", [link.node.input[link.data]], T=kind)
                else:
                    self._bypass(link)
            return
        if segment:
            adding, source = segment[-1].node, segment[-1].node.input[segment[-1].data]
            constant = self.view.add_constant(f"{adding.name}/bias", bias)
            self.view.become(adding, "BiasAdd", [source, constant], T=kind)
        else:
            constant = self.view.add_constant(f"{layer.name}/bias", bias)
            adding = self.view.insert_behind(
                layer, f"{layer.name}/biased", "BiasAdd", [constant], T=kind
            )
        adding.attr["data_format"].s = b"NCHW" if is_first else b"NHWC"

    def _bypass(self, link: _Link) -> None:
        self.view.redirect(link.node, link.node.input[link.data])
        self.view.detach(link.node)

    def _adds_nodes(
        self, plan: _Plan, layer: Any, biases: Sequence[NDArray[Any] | None], *, is_changed: bool
    ) -> bool:
        """Say whether the graph would have more nodes afterwards: constants that others read too stay."""
        from strop.graph.linear import KERNEL

        gone = [link for link in plan.before if link.map]
        more = 0
        for segment, bias in zip(plan.behind, biases, strict=True):
            gone += segment
            stays = bias is not None or any(
                last.node.name in self.ends.nodes for last in segment[-1:]
            )
            more += stays + (bias is not None)
        operands = [
            operand
            for link in gone
            for place, operand in enumerate(link.node.input)
            if place != link.data
        ]
        if is_changed:
            operands.append(layer.input[KERNEL])
            more += 1
        return more > len(gone) + sum(map(self._lone, operands))

    def _lone(self, tensor: str) -> int:
        """Return how many nodes are needed for `tensor` alone, where one node reads it."""
        node = self.view.node(tensor)
        if len(self.view.readers(node)) != 1 or node.name in self.ends.nodes:
            return 0
        return 1 + sum(map(self._lone, node.input))

    def _behind(self, node: Any, layer: Linear, kernel: NDArray[Any]) -> list[list[_Link]]:
        """Return the maps behind a layer, as far as one leads to the next and to nothing else, in segments."""
        from strop.graph.linear import channel_axis

        axis = channel_axis(node, layer)
        channels = int(np.prod([kernel.shape[a] for a in layer.output_axes]))
        segments: list[list[_Link]] = [[]]
        current = node
        while current.name not in self.ends.nodes:
            found = self.view.sole_reader(current)
            link = found and self._link(*found, layer.rank, axis, channels)
            if not link:
                break
            if link.map is None:
                segments.append([])
            else:
                segments[-1].append(link)
            current = link.node
        while len(segments) > 1 and all(link.node.op == "Identity" for link in segments[-1]):
            segments.pop()
        return segments

    def _before(self, node: Any, layer: Linear, kernel: NDArray[Any]) -> list[_Link]:
        """Return the maps and paddings before a layer that nothing but the layer needs, the first first."""
        links = list(self._upwards(node, layer))
        while links and (links[-1].map is None or links[-1].node.op == "Identity"):
            links.pop()
        return links[::-1]

    def _upwards(self, node: Any, layer: Linear) -> Iterator[_Link]:
        from strop.graph.linear import channel_axis
        from strop.graph.view import full_name

        axis, current, place = channel_axis(node, layer), node, layer.data
        while full_name(current.input[place]) not in self.ends.inputs:
            maker = self.view.node(current.input[place])
            if maker.name in self.ends.nodes or self.view.sole_reader(maker) is None:
                return
            links = (
                self._link(
                    maker, data, layer.rank, axis, self._channels(maker.input[data], layer, axis)
                )
                for data in range(min(2, len(maker.input)))
            )
            link = next((found for found in links if found), None)
            if link is None:
                return
            yield link
            current, place = maker, link.data

    def _channels(self, tensor: str, layer: Linear, axis: int) -> int | None:
        """Return how many channels a tensor has; None where it is not known, or of another rank than the layer's data."""
        try:
            shape = self.shapes(tensor)
        except (KeyError, ValueError):  # made by folding, or a control edge
            return None
        return shape[axis] if shape is not None and len(shape) == layer.rank else None

    def _link(
        self, node: Any, data: int, rank: int, axis: int, channels: int | None
    ) -> _Link | None:
        """Return what a node does to the channels of one operand, if it is a map of channels or a padding."""
        if channels is None or any(name.startswith("^") for name in node.input):
            return None
        if node.op in _PADS:
            return (
                _Link(node, 0, None) if data == 0 and self._pads_with_zeros(node, axis) else None
            )
        found = self._map(node, data, rank, axis)
        fits = found and {len(found.scale), len(found.offset)} <= {1, channels} and found.is_finite
        return _Link(node, data, found) if fits else None

    def _pads_with_zeros(self, node: Any, axis: int) -> bool:
        """Say whether a padding leaves the channels alone, and puts what a scale keeps."""
        sizes = self.constants.value(node.input[1])
        fill = self.constants.value(node.input[2]) if node.op == "PadV2" else np.zeros(1)
        return bool(
            sizes is not None and not sizes[axis].any() and fill is not None and not fill.any()
        )

    def _map(self, node: Any, data: int, rank: int, axis: int) -> Affine | None:
        """Return what a node does to channels; None where that is no map of them."""
        from strop.graph.view import attribute

        if node.op == "Identity":
            return _KEPT
        if node.op in _NORMALIZATIONS or node.op == "BatchNormWithGlobalNormalization":
            return self._normalization(node, axis) if data == 0 else None
        if node.op == "BiasAdd":
            at = 1 if attribute(node, "data_format", "s", b"NHWC") == b"NCHW" else rank - 1
            value = self.constants.value(node.input[1])
            return (
                Affine.of(offset=value) if data == 0 and at == axis and value is not None else None
            )
        if node.op not in _ARITHMETIC or len(node.input) != 2:
            return None
        value = self.constants.value(node.input[1 - data])
        other = None if value is None else _by_channel(value, rank, axis)
        if other is None:
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            return _ARITHMETIC[node.op](other, data)

    def _normalization(self, node: Any, axis: int) -> Affine | None:
        from strop.graph.view import attribute

        values = [self.constants.value(name) for name in node.input[1:]]
        if any(value is None for value in values):
            return None
        if node.op == "BatchNormWithGlobalNormalization":
            mean, variance, beta, gamma = values
            if not attribute(node, "scale_after_normalization", "b", default=False):
                gamma = np.ones(1)
            epsilon, at = attribute(node, "variance_epsilon", "f", 0.0), 3
        else:
            gamma, beta, mean, variance = values
            epsilon = attribute(node, "epsilon", "f", 1e-4)
            at = 1 if attribute(node, "data_format", "s", b"NHWC") == b"NCHW" else 3
            if attribute(node, "is_training", "b", default=True):
                return None
        return batch_normalization(mean, variance, gamma, beta, epsilon) if at == axis else None


def _by_channel(value: NDArray[Any], rank: int, axis: int) -> NDArray[Any] | None:
    """Return a constant operand as one number a channel; None where it differs by more than channel."""
    if value.ndim > rank:
        return None
    shape = (*(1,) * (rank - value.ndim), *value.shape)
    others = [size for place, size in enumerate(shape) if place != axis]
    return value.reshape(-1) if all(size == 1 for size in others) else None


def _difference(other: NDArray[Any], data: int) -> Affine:
    return Affine.of(offset=-other) if data == 0 else Affine.of(-1.0, other)


def _quotient(other: NDArray[Any], data: int) -> Affine | None:
    return Affine.of(1 / other.astype(np.float64)) if data == 0 else None


_ARITHMETIC = {
    "Add": lambda other, data: Affine.of(offset=other),
    "AddV2": lambda other, data: Affine.of(offset=other),
    "Sub": _difference,
    "Mul": lambda other, data: Affine.of(other),
    "RealDiv": _quotient,
    "Div": _quotient,
}


def _has_pads(links: Sequence[_Link]) -> bool:
    return any(link.map is None for link in links)
