"""Which channels of a Keras model go together, so that layers can have fewer of them and still fit.

A channel is a place on the last axis of what a layer gives. Layers pass channels on (activations, pooling), join them
(a sum of two branches wants the k-th of both), or set one after the other (a concatenation). What nothing is known of
takes all of them as they are, and so do the model's outputs: those channels are fixed, and so is all that is joined to
them. Torch-Pruning's groups of coupled layers (Fang et al., *DepGraph*, CVPR 2023, arXiv:2301.12900) are the same idea;
here single channels are joined, so that concatenations and flattened maps need nothing of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from strop.graph.keras_calls import Call, Calls, Tensor

Places = NDArray[np.intp]

DENSE = frozenset({"Dense"})
CONVOLUTIONS = frozenset({"Conv1D", "Conv2D", "Conv3D"})
TRANSPOSED = frozenset({"Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"})
DEPTHWISE = frozenset({"DepthwiseConv1D", "DepthwiseConv2D"})
SEPARABLE = frozenset({"SeparableConv1D", "SeparableConv2D"})
EMBEDDINGS = frozenset({"Embedding"})
RECURRENT = frozenset({"GRU", "LSTM", "SimpleRNN"})
NORMALIZATIONS = frozenset({"BatchNormalization", "LayerNormalization"})
# What makes channels of its own, as many as it is told to.
MAKERS = DENSE | CONVOLUTIONS | TRANSPOSED | SEPARABLE | EMBEDDINGS

PASSING = {
    "Activation", "ActivityRegularization", "AlphaDropout", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D",
    "Cropping1D", "Cropping2D", "Cropping3D", "Dropout", "ELU", "GaussianDropout", "GaussianNoise",
    "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D", "GlobalMaxPooling1D",
    "GlobalMaxPooling2D", "GlobalMaxPooling3D", "Identity", "LeakyReLU", "Masking", "MaxPooling1D", "MaxPooling2D",
    "MaxPooling3D", "PReLU", "ReLU", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "UpSampling1D",
    "UpSampling2D", "UpSampling3D", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D",
    # operations that are no layers
    "Abs", "Absolute", "Clip", "Elu", "Exp", "Gelu", "HardSigmoid", "HardSilu", "LeakyRelu", "Log", "Negative", "Relu",
    "Relu6", "Rsqrt", "Selu", "Sigmoid", "Silu", "Softplus", "Softsign", "Sqrt", "Square", "Tanh",
}  # fmt: skip
_SUMS = {
    "Add", "Average", "Divide", "Maximum", "Minimum", "Multiply", "Subtract", "TrueDivide",
}  # fmt: skip
_GATES = "the gates of recurrent layers keep their size"
_HEADS = "the heads of attention keep their size"
_OWN = {
    "Bidirectional": _GATES, "ConvLSTM1D": _GATES, "ConvLSTM2D": _GATES, "ConvLSTM3D": _GATES, "RNN": _GATES,
    "GroupedQueryAttention": _HEADS, "MultiHeadAttention": _HEADS,
}  # fmt: skip
_OVER_CHANNELS = {"glu", "log_softmax", "softmax", "sparsemax", "squareplus"}


@dataclass(frozen=True)
class Coupling:
    """The channels of a model.

    Attributes:
        made: The channels that a layer gives, by its `id`.
        read: The channels that it is given, by its `id`.
        units: A number for each channel; those that go together have the same.
        families: A number for each unit; how many of a family stay is decided together.
        fixed: Why a unit has to stay, for those that have to.
        whole: Why a layer has to stay as it is, by its `id`, for those that have to.
    """

    made: Mapping[int, Places]
    read: Mapping[int, Places]
    units: Places
    families: Places
    fixed: Mapping[int, str]
    whole: Mapping[int, str]

    def reason(self, layer: Any) -> str | None:
        """Return why channels that a layer gives have to stay, if any has to."""
        units = self.units[self.made.get(id(layer), np.empty(0, np.intp))]
        return next((self.fixed[unit] for unit in units.tolist() if unit in self.fixed), None)

    def kept(self, width: float, importance: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which channels stay where a share of each family does, the most important, and all that have to.

        Args:
            width: The share, in (0, 1]; of each family at least one stays.
            importance: Of each unit.
        """
        stays = np.zeros(len(self.families), np.bool_)
        stays[list(self.fixed)] = True
        is_free = ~stays
        order = np.lexsort((-importance, self.families))
        for members in np.split(order, np.flatnonzero(np.diff(self.families[order])) + 1):
            free = members[is_free[members]]
            stays[free[: max(round(width * len(free)), 1)]] = True
        return stays[self.units]

    def importance(self, scores: Mapping[int, NDArray[np.floating[Any]]]) -> NDArray[np.float64]:
        """Return the importance of each unit, by the scores of the channels that layers give, by their `id`.

        Each layer has the same say, however large its weights are.
        """
        found = np.zeros(len(self.families))
        for layer, score in scores.items():
            mean = float(np.mean(score))
            np.add.at(found, self.units[self.made[layer]], score / mean if mean > 0 else 0.0)
        return found


def coupling_of(calls: Calls, whole: Mapping[int, str]) -> Coupling:
    """Return which channels of a model go together.

    Args:
        calls: The model's.
        whole: Layers that are to stay as they are, by their `id`, with the reason.
    """
    finding = _Finding(dict(whole))
    for call in calls.calls:
        if (why := _strange(call)) and id(call.operation) not in finding.whole:
            finding.whole[id(call.operation)] = why
    for tensor in calls.inputs:
        finding.place(tensor, finding.fresh(tensor, "its channels meet those of an input"))
    for call in calls.calls:
        finding.follow(call)
    for tensor in calls.outputs:
        finding.fix(tensor, "its channels are those of an output", is_first=True)
    return finding.found()


class _Finding:
    """Channels as they are found, a call at a time."""

    def __init__(self, whole: dict[int, str]) -> None:
        self.whole = whole
        self.made: dict[int, Places] = {}
        self.read: dict[int, Places] = {}
        self._of: dict[Tensor, Places | None] = {}
        self._count = 0
        self._joined: list[tuple[Places, Places]] = []
        self._siblings: list[tuple[Places, Places]] = []
        self._fixed: list[tuple[Places, str]] = []

    def fresh(self, tensor: Tensor, reason: str = "") -> Places | None:
        """Return new channels for a tensor, fixed where there is a reason; None where it has none that are known."""
        if len(tensor.shape) < 2 or tensor.shape[-1] is None:
            return None
        first, self._count = self._count, self._count + tensor.shape[-1]
        found = np.arange(first, self._count)
        if reason:
            self._fixed.append((found, reason))
        return found

    def place(self, tensor: Tensor, channels: Places | None) -> None:
        """Say what the channels of a tensor are."""
        self._of[tensor] = channels

    def fix(self, tensor: Tensor, reason: str, *, is_first: bool = False) -> None:
        """Have all channels of a tensor stay; what is first is told where there are other reasons too."""
        channels = self._of[tensor]
        if channels is not None:
            self._fixed.insert(0 if is_first else len(self._fixed), (channels, reason))

    def follow(self, call: Call) -> None:
        """Find the channels that a call gives."""
        why = self.whole.get(id(call.operation))
        channels = None if why else self._followed(call)
        if channels is None:
            self._stop_at(call, why)
            return
        (result,) = call.results
        self.place(result, channels)

    def found(self) -> Coupling:
        """Return what was found."""
        units, count = _together(self._joined, self._count)
        siblings = [(units[one], units[other]) for one, other in self._siblings]
        families, _ = _together(siblings, count)
        fixed: dict[int, str] = {}
        for channels, reason in self._fixed:
            for unit in np.unique(units[channels]).tolist():
                fixed.setdefault(unit, reason)
        return Coupling(self.made, self.read, units, families, fixed, self.whole)

    def _stop_at(self, call: Call, why: str | None) -> None:
        """Have all that a call is given and gives stay as it is."""
        layer, kind = id(call.operation), type(call.operation).__name__
        own = _OWN.get(kind, f"how a {kind} treats channels is not known")
        why = self.whole.setdefault(layer, why or own)
        for tensor in call.tensors:
            self.fix(tensor, f"'{call.name}', a {kind}, takes all its channels as they are")
        for known in (self.made, self.read):
            if layer in known:  # it was understood where it stood before
                self._fixed.append((known[layer], why))
        for tensor in call.results:
            self.place(tensor, self.fresh(tensor, why))

    def _followed(self, call: Call) -> Places | None:
        """Return the channels that a call gives; None where nothing is known of such a call."""
        kind, result = call.kind, call.sole_result
        if kind in RECURRENT:
            return self._recurrent(call)
        if result is None or _has_more_to_go_by(call):
            return None
        if kind in _SUMS:
            return self._summed(call, result)
        if kind == "Concatenate":
            return self._concatenated(call)
        if len(call.tensors) != 1 or len(call.operands) != 1:
            return None
        if kind in MAKERS:
            return self._making(call, result)
        given = self._of[call.tensors[0]]
        if given is None:
            return None
        if kind in DEPTHWISE:
            given = self._noted(self.read, call, given)
            return self._noted(self.made, call, np.repeat(given, call.operation.depth_multiplier))
        if kind in NORMALIZATIONS | PASSING:
            return self._noted(self.read, call, given)
        if kind in ("Flatten", "Reshape"):
            return self._reshaped(call, given, result)
        return None

    def _making(self, call: Call, result: Tensor) -> Places | None:
        if call.kind not in EMBEDDINGS:
            given = self._of[call.tensors[0]]
            if given is None:
                return None
            self._noted(self.read, call, given)
        layer = call.operation
        if id(layer) not in self.made:
            softmax = _is_over_channels(getattr(layer, "activation", None))
            channels = self.fresh(result, _SOFTMAX if softmax else "")
            if channels is None:
                return None
            self.made[id(layer)] = channels
            self._siblings.append((channels[:-1], channels[1:]))
        return self.made[id(layer)]

    def _recurrent(self, call: Call) -> Places | None:
        """Let a recurrent layer be given fewer channels; what it gives and keeps is its own."""
        given = self._of[call.tensors[0]] if len(call.tensors) == 1 else None
        if given is None or call.sole_result is None:
            return None
        self._noted(self.read, call, given)
        channels = self.fresh(call.sole_result, _GATES)
        return None if channels is None else self._noted(self.made, call, channels)

    def _summed(self, call: Call, result: Tensor) -> Places | None:
        wide = [t for t in call.tensors if t.shape[-1:] == result.shape[-1:]]
        rest = [o for o in call.operands if not any(o is tensor for tensor in wide)]
        channels = [self._of[tensor] for tensor in wide]
        first = channels[0] if channels else None
        if first is None or not all(map(_is_spread, rest)):
            return None
        if hasattr(call.operation, "build") and len({len(t.shape) for t in call.tensors}) > 1:
            return None  # layers add axes in the middle, operations before the first
        for other in channels[1:]:
            if other is None:
                return None
            self._joined.append((first, other))
        for tensor in rest:
            if isinstance(tensor, Tensor):
                self.fix(tensor, f"'{call.name}' spreads its one channel over others")
        return first

    def _concatenated(self, call: Call) -> Places | None:
        channels = [self._of[tensor] for tensor in call.tensors]
        known = [places for places in channels if places is not None]
        if len(known) < len(channels) or len(call.operands) != len(known) or not known:
            return None
        rank = len(call.tensors[0].shape)
        if call.operation.axis % rank == rank - 1:
            return np.concatenate(known)
        self._joined += [(known[0], other) for other in known[1:]]
        return known[0]

    def _reshaped(self, call: Call, given: Places, result: Tensor) -> Places | None:
        """Return the channels of maps that are written in a row, or have their places arranged anew."""
        before, after = call.tensors[0].shape[1:], result.shape[1:]
        if not after or after[-1] is None:
            return None
        if call.kind == "Reshape":
            rows = 1 if after[-1] == before[-1] else _rows(before, after[-1])
            return None if rows is None else self._noted(self.made, call, np.tile(given, rows))
        rows = _rows(before, after[-1])
        return None if rows is None else np.tile(given, rows)

    def _noted(self, kept: dict[int, Places], call: Call, channels: Places) -> Places:
        """Note what a layer is given, or gives; where it stands twice, both are to be the same."""
        known = kept.setdefault(id(call.operation), channels)
        if known is not channels:
            self._joined.append((known, channels))
        return channels


def _has_more_to_go_by(call: Call) -> bool:
    """Say whether a call has arguments by name that may decide what it does to channels, such as a mask."""
    named = call.arguments[1]
    return any(value is not None for name, value in named.items() if name != "training")


def _rows(before: Sequence[int | None], length: int) -> int | None:
    """Return how often channels come again where maps, or the last of their axes, become one axis of some length."""
    for axis in range(len(before)):
        sizes = [size for size in before[axis:] if size is not None]
        if len(sizes) == len(before) - axis and prod(sizes) == length:
            return prod(sizes[:-1])
    return None


_SOFTMAX = "a softmax is taken over its channels"


def _together(pairs: Sequence[tuple[Places, Places]], count: int) -> tuple[Places, int]:
    """Return a number for each of `count` things, the same for those that pairs join, and how many numbers there are."""
    rows, columns = (
        np.concatenate([np.empty(0, np.intp), *(pair[side] for pair in pairs)]) for side in (0, 1)
    )
    graph = coo_array((np.ones(len(rows), np.bool_), (rows, columns)), shape=(count, count))
    numbers, labels = connected_components(graph, directed=False)
    return labels.astype(np.intp), int(numbers)


def _is_spread(operand: Any) -> bool:
    """Say whether an operand of a sum is the same for all channels: a number, or a tensor of one channel."""
    if isinstance(operand, Tensor):
        return operand.shape[-1:] == (1,)
    return bool(np.isscalar(operand))


def _is_over_channels(activation: Any) -> bool:
    """Say whether a function looks at all channels at once, or may do so."""
    if activation is None:
        return False
    is_own = str(getattr(activation, "__module__", "")).startswith("keras.")
    name = getattr(activation, "__name__", type(activation).__name__.lower())
    return not is_own or name in _OVER_CHANNELS


def _strange(call: Call) -> str | None:
    """Return why a layer, of a class that is known otherwise, can't have fewer channels; None where it can."""
    layer = call.operation
    return next((reason for holds, reason in _STRANGE if holds(layer, call)), None)


def _normalizes_otherwise(layer: Any, call: Call) -> bool:
    if call.kind not in NORMALIZATIONS or not call.tensors:
        return False
    rank = len(call.tensors[0].shape)
    return [int(axis) % rank for axis in np.atleast_1d(layer.axis)] != [rank - 1]


_STRANGE: tuple[tuple[Callable[[Any, Call], bool], str], ...] = (
    (
        lambda layer, call: call.kind in CONVOLUTIONS and layer.groups != 1,
        "its channels are in groups",
    ),
    (
        lambda layer, call: getattr(layer, "data_format", None) == "channels_first",
        "its channels come first",
    ),
    (
        lambda layer, call: bool(
            getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False)
        ),
        "its kernel is quantized, or adapted by LoRA",
    ),
    (_normalizes_otherwise, "it normalizes along other axes than that of the channels"),
    (
        lambda layer, call: call.kind == "Activation" and _is_over_channels(layer.activation),
        "its function looks at all channels at once",
    ),
)
