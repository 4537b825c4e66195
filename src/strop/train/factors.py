"""Layers of a live Keras model as rows of several, at all ranks: what these keep of it, what they cost, and what they are.

The last of the layers that one becomes has its name, its bias and its activation; ``conv_factor1`` and so on stand
before ``conv``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from strop.numerics.low_rank import (
    Floats,
    SingularValues,
    Tucker,
    channel_kernels,
    channel_matrix,
    largest_paying_rank,
    pointwise,
    spatial_kernels,
    spatial_matrix,
    spatial_product,
    tucker_product,
)
from strop.train.kernels import Kernel
from strop.train.rebuilding import Part, Use, alike

KINDS = ("tucker", "channel", "spatial")
Ranks = tuple[int, ...]

_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_FACTORED = (keras.layers.Dense, keras.layers.Embedding, *_CONVOLUTIONS)
# Two convolutions of 3 x 3 with 32 to 128 channels, measured in LiteRT and OpenVINO with one thread: with 0.59 to 0.64 of
# the multiply-accumulates their 'tucker' or 'channel' factors took 0.56 to 1.07 of the time, with 0.43 to 0.45 of them 0.42
# to 0.64.
_MARGIN, _MARGIN_OF_CONVOLUTIONS = 0.1, 1 / 3
_SHARED = "its kernel is that of the layer '{}' too, which factors would part"
_CONSTRAINED = "its kernel has a constraint, which factors would not keep"


@dataclass(frozen=True)
class Factors:
    """What one layer became.

    Attributes:
        ranks: What was chosen: one rank, or for Tucker's kind one for input and one for output channels.
        full: The ranks at which nothing would be lost.
        kept: The share of the kernel's energy (its sum of squares) that is kept; for Tucker's kind a little more may
            be.
        macs: Multiply-accumulates a sample, before and after, in all places where the layer stands; those of one
            place of the output where its size is free.
        weights: Weights of the kernel, and of those that it became.
    """

    ranks: Ranks
    full: Ranks
    kept: float
    macs: tuple[int, int]
    weights: tuple[int, int]

    def __str__(self) -> str:
        share = math.floor(1000 * self.kept) / 10  # rounded up, 99.97 % would be said to be all
        return f"{spelled(self.ranks, self.full)}, which keeps {share:g} % of its energy"


def spelled(ranks: Ranks, full: Ranks) -> str:
    """Return ranks in words."""
    plural = "s" if len(ranks) > 1 else ""
    return f"rank{plural} {' and '.join(map(str, ranks))} of {' and '.join(map(str, full))}"


@dataclass(frozen=True)
class Way:
    """A way to write one layer as several, for all ranks; arrays have an axis a rank, whose places stand for 1 and on.

    Attributes:
        layer: The layer.
        kept: The share of its energy that is kept.
        macs: Multiply-accumulates of what it would become.
        weights: Weights of that.
        macs_now: Its own.
        weights_now: Its own.
        is_counted: Whether all sizes are known; where not, it is one place of the output that is counted.
        margin: The share of both that has to be saved.
        factored: Returns the kernels for some ranks, first to last.
        product: Returns the one kernel that such kernels are together, of the shape of the layer's.
        parts: Returns the layers for such kernels, given what makes names for all but the last.
    """

    layer: Any
    kept: Floats
    macs: Floats
    weights: Floats
    macs_now: int
    weights_now: int
    is_counted: bool
    margin: float
    factored: Callable[[Ranks], Sequence[Floats]]
    product: Callable[..., Floats]
    parts: Callable[[Sequence[Floats], Iterator[str]], list[Part]]

    @property
    def pays(self) -> NDArray[np.bool_]:
        """Which ranks save enough."""
        saved = self.weights_now - self.weights
        enough = (saved > 0) & (saved >= self.margin * self.weights_now)
        if self.macs_now:
            saved = self.macs_now - self.macs
            enough &= (saved > 0) & (saved >= self.margin * self.macs_now)
        return enough

    def cheapest(self, allowed: NDArray[np.bool_]) -> Ranks | None:
        """Return the ranks with the fewest multiply-accumulates, if any are allowed."""
        places = np.flatnonzero(allowed)
        if not len(places):
            return None
        order = np.lexsort((self.weights.flat[places], self.macs.flat[places]))
        return self.ranks(places[order[0]])

    def ranks(self, place: int) -> Ranks:
        """Return the ranks at a place of the flattened arrays."""
        return tuple(int(axis) + 1 for axis in np.unravel_index(place, self.kept.shape))

    def factors(self, ranks: Ranks) -> Factors:
        """Return what the layer becomes at some ranks."""
        place = tuple(rank - 1 for rank in ranks)
        return Factors(
            ranks,
            self.kept.shape,
            float(self.kept[place]),
            (self.macs_now, int(self.macs[place])),
            (self.weights_now, int(self.weights[place])),
        )

    def approximated(self, ranks: Ranks) -> Floats:
        """Return the kernel with which the layer would answer as its factors do."""
        return self.product(*self.factored(ranks))

    def row(self, ranks: Ranks, names: Iterator[str]) -> list[Part]:
        """Return the layers that stand for the layer, the last of which has its name."""
        return self.parts(self.factored(ranks), names)


def ways(
    kernels: Sequence[Kernel], uses: Sequence[Use], kind: str, margin: float | None
) -> tuple[dict[str, Way], dict[str, str]]:
    """Return the ways to factor layers by name, and the layers that have none, with the reason.

    Args:
        kernels: What may be factored.
        uses: Those of layers in the model.
        kind: What convolutions become, one of `KINDS`.
        margin: The share of multiply-accumulates and of weights that has to be saved, in [0, 1); None for a third in
            convolutions, and a tenth in others.
    """
    owners: dict[int, dict[int, list[Use]]] = {}
    for use in uses:
        for variable in use.layer.variables:
            owners.setdefault(id(variable), {}).setdefault(id(use.layer), []).append(use)
    found: dict[str, Way] = {}
    left: dict[str, str] = {}
    for kernel in kernels:
        way = _way_of(kernel, list(owners.get(id(kernel.variable), {}).values()), kind, margin)
        if isinstance(way, str):
            left[kernel.layer] = way
        else:
            found[kernel.layer] = way
    return found, left


def _way_of(
    kernel: Kernel, owners: Sequence[Sequence[Use]], kind: str, margin: float | None
) -> Way | str:
    """Return the way to factor a kernel, or why there is none, given the uses of each layer that has it."""
    layers = [uses[0].layer for uses in owners]
    if not layers:
        return "the model does not call it"
    if layers[0].name != kernel.layer.split("/")[-1]:
        return f"code of the layer '{layers[0].name}' calls it, where no others can be put"
    # A class derived from these may do anything with its kernel.
    if type(layers[0]) not in _FACTORED:
        return f"no factors of its class '{type(layers[0]).__name__}' are known"
    if len(layers) > 1:
        return _SHARED.format(layers[1].name)
    weights = kernel.weights.astype(np.float64)
    if not weights.size:
        return "its kernel has no weights"
    if not np.isfinite(weights).all():
        return "its weights are not all finite"
    (layer,), (uses,) = layers, owners
    if margin is None:
        margin = _MARGIN_OF_CONVOLUTIONS if isinstance(layer, _CONVOLUTIONS) else _MARGIN
    if isinstance(layer, keras.layers.Embedding):
        is_constrained = layer.embeddings_constraint is not None
        return _CONSTRAINED if is_constrained else _embedding(layer, weights, uses, margin)
    if layer.kernel_constraint is not None:
        return _CONSTRAINED
    if isinstance(layer, keras.layers.Dense):
        return _dense(layer, weights, uses, margin)
    if layer.groups != 1:
        return f"its channels are in {layer.groups} groups"
    makers = {"tucker": _tucker, "channel": _channel, "spatial": _spatial}
    return makers[kind](layer, weights, _Places.of(layer, uses), margin)


def _dense(layer: Any, kernel: Floats, uses: Sequence[Use], margin: float) -> Way | str:
    counts = [_product(use.gives[1:-1]) for use in uses]
    each = sum(count or 1 for count in counts)

    def parts(factors: Sequence[Floats], names: Iterator[str]) -> list[Part]:
        left, right = factors
        return _parts_like(layer, [(left, {"units": len(right)}), (right, {})], names)

    return _of_matrix(
        layer, kernel, (each, each), each, None not in counts, margin,
        factored=lambda left, right: (left, right), product=np.matmul, parts=parts,
    )  # fmt: skip


def _embedding(layer: Any, table: Floats, uses: Sequence[Use], margin: float) -> Way | str:
    counts = [_product(use.given[1:]) for use in uses]
    each = sum(count or 1 for count in counts)

    def parts(factors: Sequence[Floats], names: Iterator[str]) -> list[Part]:
        left, right = factors
        changes = {"name": next(names), "output_dim": len(right), "activity_regularizer": None}
        narrow = alike(layer, changes, but=("embeddings_initializer",))
        widening = keras.layers.Dense(
            layer.output_dim,
            use_bias=False,
            kernel_regularizer=layer.embeddings_regularizer,
            activity_regularizer=layer.activity_regularizer,
            dtype=layer.dtype_policy,
            name=layer.name,
        )
        return [Part(narrow, [left]), Part(widening, [right])]

    return _of_matrix(
        layer, table, (0, each), 0, None not in counts, margin,
        factored=lambda left, right: (left, right), product=np.matmul, parts=parts,
    )  # fmt: skip


@dataclass(frozen=True)
class _Places:
    """How many places a convolution has, summed over all uses.

    Attributes:
        given: Of what it is given.
        between: As what it gives along the first axis of space, and as what it is given along the others.
        gives: Of what it gives.
        is_counted: Whether all sizes are known; where not, there is one place in what it gives.
    """

    given: int
    between: int
    gives: int
    is_counted: bool

    @classmethod
    def of(cls, layer: Any, uses: Sequence[Use]) -> _Places:
        """Return the places of a convolution."""
        axes = slice(2, None) if layer.data_format == "channels_first" else slice(1, -1)
        sums, is_counted = np.zeros(3, np.int64), True
        for use in uses:
            given, gives = use.given[axes], use.gives[axes]
            if None in given + gives:
                given, gives, is_counted = layer.strides, (1,) * len(gives), False
            between = gives[:1] + given[1:]
            sums += [math.prod(size or 0 for size in sizes) for sizes in (given, between, gives)]
        given_in_all, between_in_all, gives_in_all = sums.tolist()
        return cls(given_in_all, between_in_all, gives_in_all, is_counted)


_POINTWISE = {"strides": 1, "dilation_rate": 1, "padding": "valid"}


def _channel(layer: Any, kernel: Floats, places: _Places, margin: float) -> Way | str:
    def factored(left: Floats, right: Floats) -> Sequence[Floats]:
        return channel_kernels(left, right, kernel.shape)

    def product(core: Floats, last: Floats) -> Floats:
        return core @ last.reshape(last.shape[-2:])

    def parts(factors: Sequence[Floats], names: Iterator[str]) -> list[Part]:
        core, last = factors
        return _convolutions(layer, [(core, {}), (last, _POINTWISE)], names)

    each, matrix = places.gives, channel_matrix(kernel)
    return _of_matrix(
        layer, matrix, (each, each), each, places.is_counted, margin,
        factored=factored, product=product, parts=parts,
    )  # fmt: skip


def _spatial(layer: Any, kernel: Floats, places: _Places, margin: float) -> Way | str:
    shape = kernel.shape

    def parts(factors: Sequence[Floats], names: Iterator[str]) -> list[Part]:
        left, right = factors
        down, across = spatial_kernels(left, right, shape)
        (stride, *strides), (rate, *rates) = layer.strides, layer.dilation_rate
        ones = [1 for _ in strides]
        changes = {"strides": [stride, *ones], "dilation_rate": [rate, *ones]}
        others = {"strides": [1, *strides], "dilation_rate": [1, *rates]}
        return _convolutions(layer, [(down, changes), (across, others)], names)

    each, matrix = (places.between, places.gives), spatial_matrix(kernel)
    return _of_matrix(
        layer, matrix, each, places.gives, places.is_counted, margin,
        factored=lambda left, right: (left, right),
        product=lambda left, right: spatial_product(left, right, shape), parts=parts,
    )  # fmt: skip


def _of_matrix(
    layer: Any,
    matrix: Floats,
    uses: tuple[int, int],
    uses_now: int,
    is_counted: bool,
    margin: float,
    *,
    factored: Callable[[Floats, Floats], Sequence[Floats]],
    product: Callable[..., Floats],
    parts: Callable[[Sequence[Floats], Iterator[str]], list[Part]],
) -> Way | str:
    """Return the way to write a layer as two whose kernels are the factors of a matrix, or why there is none.

    Args:
        layer: The layer.
        matrix: Its kernel as a matrix.
        uses: How often each weight of the first and of the second factor is multiplied with.
        uses_now: How often each of the matrix is.
        is_counted: Whether these numbers are known.
        margin: The share that has to be saved.
        factored: Returns kernels for factors of the matrix.
        product: As of `Way`.
        parts: As of `Way`.
    """
    rows, columns = matrix.shape
    if not largest_paying_rank(rows, columns, margin):
        return f"its kernel, {rows} x {columns} as a matrix, is too small for any rank to pay"
    found = SingularValues.of(matrix)
    rank = np.arange(1.0, len(found.values) + 1)
    return Way(
        layer,
        kept=found.kept,
        macs=rank * (rows * uses[0] + columns * uses[1]),
        weights=rank * (rows + columns),
        macs_now=matrix.size * uses_now,
        weights_now=matrix.size,
        is_counted=is_counted,
        margin=margin,
        factored=lambda ranks: factored(*found.factors(*ranks)),
        product=product,
        parts=parts,
    )


def _tucker(layer: Any, kernel: Floats, places: _Places, margin: float) -> Way | str:
    *sizes, inputs, outputs = kernel.shape
    found = Tucker.of(kernel)
    given, gives = np.ogrid[1 : inputs + 1, 1 : outputs + 1]
    # All channels of one side are left as they are, without a convolution for them.
    before = np.where(given < inputs, inputs * given, 0.0)
    core = math.prod(sizes) * given * gives
    behind = np.where(gives < outputs, gives * outputs, 0.0)

    def parts(factors: Sequence[Floats], names: Iterator[str]) -> list[Part]:
        first, middle, last = factors
        chain: list[tuple[Floats, Mapping[str, Any]]] = [(middle, {})]
        if first.shape[-1] < inputs:
            chain.insert(0, (pointwise(first, kernel.ndim), _POINTWISE))
        if len(last) < outputs:
            chain.append((pointwise(last, kernel.ndim), _POINTWISE))
        return _convolutions(layer, chain, names)

    return Way(
        layer,
        kept=found.kept,
        macs=before * places.given + (core + behind) * places.gives,
        weights=before + core + behind,
        macs_now=kernel.size * places.gives,
        weights_now=kernel.size,
        is_counted=places.is_counted,
        margin=margin,
        factored=lambda ranks: found.factors((ranks[0], ranks[1])),
        product=tucker_product,
        parts=parts,
    )


_Chain = Sequence[tuple[Floats, Mapping[str, Any]]]


def _convolutions(layer: Any, chain: _Chain, names: Iterator[str]) -> list[Part]:
    """Return convolutions with kernels of shape HWCK, each like `layer` but for some of its configuration."""
    sized = [
        (kernel, {"filters": kernel.shape[-1], "kernel_size": kernel.shape[:-2], **changes})
        for kernel, changes in chain
    ]
    return _parts_like(layer, sized, names)


def _parts_like(layer: Any, chain: _Chain, names: Iterator[str]) -> list[Part]:
    """Return layers with these kernels, each like `layer` but for some of its configuration; the last has its bias."""
    parts = []
    plain = {"use_bias": False, "activation": None, "activity_regularizer": None}
    for kernel, changes in chain[:-1]:
        made = alike(layer, {**plain, **changes, "name": next(names)}, but=_OF_THE_SHAPE)
        parts.append(Part(made, [kernel]))
    kernel, changes = chain[-1]
    last = alike(layer, changes, but=_OF_THE_SHAPE)
    biases = [keras.ops.convert_to_numpy(layer.bias)] if layer.use_bias else []
    return [*parts, Part(last, [kernel, *biases])]


_OF_THE_SHAPE = ("kernel_initializer",)  # may hold the very kernel, such as one trained before


def _product(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None
