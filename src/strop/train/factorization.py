"""Low-rank factorization: layers of a live Keras model written as several that together have less to multiply.

What comes of it is a new model of Keras' own layers. The last of the layers that one became has its name, its bias and
its activation, so outputs keep their names; ``conv_factor1`` and so on stand before ``conv``.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from strop.core.errors import ModelError, ParameterError, message
from strop.numerics.low_rank import (
    Floats,
    SingularValues,
    Tucker,
    channel_kernels,
    channel_matrix,
    keeps,
    largest_paying_rank,
    spatial_kernels,
    spatial_matrix,
    within_budget,
)
from strop.train.pruning import Exclusion, Kernel, kernels_of

KINDS = ("tucker", "channel", "spatial")
_MARGIN = 0.1


@dataclass(frozen=True)
class Factors:
    """What one layer became.

    Attributes:
        ranks: What was chosen: one rank, or for Tucker's kind one for input and one for output channels.
        full: The ranks at which nothing would be lost.
        kept: The share of the kernel's energy (its sum of squares) that is kept.
        macs: Multiply-accumulates a sample, before and after, in all places where the layer stands; those of one
            place of the output where its size is free.
        weights: Weights of the kernel, and of those that it became.
    """

    ranks: tuple[int, ...]
    full: tuple[int, ...]
    kept: float
    macs: tuple[int, int]
    weights: tuple[int, int]

    def __str__(self) -> str:
        share = math.floor(1000 * self.kept) / 10  # rounded up, 99.97 % would be said to be all
        return f"{_ranks(self.ranks, self.full)}, which keeps {share:g} % of its energy"


@dataclass(frozen=True)
class Factorized:
    """What factorization made of a model.

    Attributes:
        model: The new model, compiled as the one given was.
        layers: What became of each layer that was factored, by its name.
        left_alone: The layers with weights that were not, with the reason.
    """

    model: Any
    layers: Mapping[str, Factors]
    left_alone: Mapping[str, str]


def factorize(
    model: Any,
    energy: float = 0.9,
    *,
    macs: float | None = None,
    kind: str = "tucker",
    exclude: Sequence[Exclusion] = (),
    margin: float = _MARGIN,
    error_of: Callable[[Any], float] | None = None,
) -> Factorized:
    """Return a new model in which Dense, Embedding and Conv2D layers are their factors, where that pays.

    Ranks are the cheapest that keep `energy` of each layer; or, where `macs` is given, those that together come to
    that share of the multiply-accumulates and lose least. Frozen layers are left alone, and so are those that code of
    other layers calls.

    An Embedding has products only once it is factored: it pays by its weights alone, and never under a budget.

    Args:
        model: A built Functional or Sequential model; it stays as it is.
        energy: The share of each kernel's energy to keep, in (0, 1].
        macs: The share of multiply-accumulates that the layers that could be factored may have left, in (0, 1].
        kind: What convolutions become. ``tucker``: 1 × 1, one of the kernel's size, and 1 × 1, without those at
            either end that would save nothing; ``channel``: one of the kernel's size, and 1 × 1; ``spatial``: one
            down, and one across.
        exclude: Layers to leave alone, as in `strop.train.pruning.kernels_of`.
        margin: The share of its multiply-accumulates and of its weights that a layer has to save, in [0, 1).
        error_of: Tells how wrong a model is, more being worse. With it each layer is factored once by itself, and
            what that costs is what its energy is worth under a budget; without it the same share of energy is worth
            the same in all layers.

    Raises:
        ParameterError: If an argument is out of its range, the budget can't be met, or multiply-accumulates can't be
            counted.
        ModelError: If the model is not built, or is neither Functional nor Sequential, or a layer can't be copied.
        UnknownNameError: If a name in `exclude` is no layer's and no class's.
    """
    mistakes = _mistakes(energy, macs, kind, margin)
    if mistakes:
        raise ParameterError("\n".join(mistakes))
    kernels, left = kernels_of(model, exclude)
    graph = _graph_of(model)
    if graph is None:
        raise ModelError(
            message(
                f"the layers of the model '{model.name}' are called by code of its own class, {type(model).__name__}, "
                "so others can't take their places.",
                "A Functional or a Sequential model can be factored.",
                next_step="keras.Model(inputs, outputs)",
            )
        )
    ways, unsuited = _ways(kernels, list(_calls(graph)), kind, margin)
    if macs is None:
        chosen, unpaid = _by_energy(ways, energy)
    else:
        chosen, unpaid = _by_budget(ways, macs, error_of and _trial(model, error_of))
    made = _rebuilt(model, {name: (ways[name], ranks) for name, ranks in chosen.items()})
    layers = {name: ways[name].factors(ranks) for name, ranks in chosen.items()}
    return Factorized(made, layers, {**left, **unsuited, **unpaid})


def _mistakes(energy: float, macs: float | None, kind: str, margin: float) -> list[str]:
    found = []
    if not 0 < energy <= 1:
        found.append(f"energy must lie in (0, 1], not {energy!r}")
    if macs is not None and not 0 < macs <= 1:
        found.append(f"macs must lie in (0, 1], not {macs!r}")
    if kind not in KINDS:
        found.append(f"kind must be one of {', '.join(map(repr, KINDS))}, not {kind!r}")
    if not 0 <= margin < 1:
        found.append(f"margin must lie in [0, 1), not {margin!r}")
    return found


def _ranks(ranks: Sequence[int], full: Sequence[int]) -> str:
    plural = "s" if len(ranks) > 1 else ""
    return f"rank{plural} {' and '.join(map(str, ranks))} of {' and '.join(map(str, full))}"


_Ranks = tuple[int, ...]


@dataclass(frozen=True)
class _Part:
    """A layer to stand for a share of another, and its weights, the kernel first."""

    layer: Any
    weights: list[NDArray[Any]]


@dataclass(frozen=True)
class _Way:
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
        parts: Makes the layers for some ranks, given what makes names for all but the last.
    """

    layer: Any
    kept: Floats
    macs: Floats
    weights: Floats
    macs_now: int
    weights_now: int
    is_counted: bool
    margin: float
    parts: Callable[[_Ranks, Iterator[str]], list[_Part]]

    @property
    def pays(self) -> NDArray[np.bool_]:
        """Which ranks save enough."""
        saved = self.weights_now - self.weights
        enough = (saved > 0) & (saved >= self.margin * self.weights_now)
        if self.macs_now:
            saved = self.macs_now - self.macs
            enough &= (saved > 0) & (saved >= self.margin * self.macs_now)
        return enough

    def cheapest(self, allowed: NDArray[np.bool_]) -> _Ranks | None:
        """Return the ranks with the fewest multiply-accumulates, if any are allowed."""
        places = np.flatnonzero(allowed)
        if not len(places):
            return None
        order = np.lexsort((self.weights.flat[places], self.macs.flat[places]))
        return self.ranks(places[order[0]])

    def ranks(self, place: int) -> _Ranks:
        """Return the ranks at a place of the flattened arrays."""
        return tuple(int(axis) + 1 for axis in np.unravel_index(place, self.kept.shape))

    def factors(self, ranks: _Ranks) -> Factors:
        """Return what the layer becomes at some ranks."""
        place = tuple(rank - 1 for rank in ranks)
        return Factors(
            ranks,
            self.kept.shape,
            float(self.kept[place]),
            (self.macs_now, int(self.macs[place])),
            (self.weights_now, int(self.weights[place])),
        )


@dataclass(frozen=True)
class _Call:
    """A place where a layer stands, with the shapes of what it is given and gives."""

    layer: Any
    given: tuple[int | None, ...]
    gives: tuple[int | None, ...]


def _ways(
    kernels: Sequence[Kernel], calls: Sequence[_Call], kind: str, margin: float
) -> tuple[dict[str, _Way], dict[str, str]]:
    """Return the ways to factor layers by name, and the layers that have none, with the reason."""
    by_kernel: dict[int, list[_Call]] = {}
    for call in calls:
        by_kernel.setdefault(id(_kernel(call.layer)), []).append(call)
    ways: dict[str, _Way] = {}
    left: dict[str, str] = {}
    for kernel in kernels:
        places = by_kernel.get(id(kernel.variable), [])
        found = _way(places[0].layer, places, kind, margin) if places else _UNSUITED
        if isinstance(found, str):
            left[kernel.layer] = found
        else:
            ways[kernel.layer] = found
    return ways, left


_UNSUITED = "factors are known for Dense, Embedding and Conv2D layers that the model itself calls"


def _kernel(layer: Any) -> Any:
    """Return the variable that is factored, if the layer is of a class whose factors are known, and of none derived."""
    if type(layer) is keras.layers.Embedding:
        return layer.embeddings
    return layer.kernel if type(layer) in (keras.layers.Dense, keras.layers.Conv2D) else None


def _way(layer: Any, calls: Sequence[_Call], kind: str, margin: float) -> _Way | str:
    """Return the way to factor a layer, or why there is none."""
    weights = np.asarray(keras.ops.convert_to_numpy(_kernel(layer)), np.float64)
    if not np.isfinite(weights).all():
        return "its weights are not all finite"
    if isinstance(layer, keras.layers.Embedding):
        if layer.embeddings_constraint is not None:
            return _CONSTRAINED
        return _embedding(layer, weights, calls, margin)
    if layer.kernel_constraint is not None:
        return _CONSTRAINED
    if isinstance(layer, keras.layers.Dense):
        return _dense(layer, weights, calls, margin)
    if layer.groups != 1:
        return f"its channels are in {layer.groups} groups"
    makers = {"tucker": _tucker, "channel": _channel, "spatial": _spatial}
    return makers[kind](layer, weights, _Places.of(layer, calls), margin)


_CONSTRAINED = "its kernel has a constraint, which factors would not keep"


def _dense(layer: Any, kernel: Floats, calls: Sequence[_Call], margin: float) -> _Way | str:
    counts = [_product(call.gives[1:-1]) for call in calls]
    each = sum(count or 1 for count in counts)

    def parts(found: SingularValues, ranks: _Ranks, names: Iterator[str]) -> list[_Part]:
        left, right = found.factors(*ranks)
        return _parts_like(layer, [(left, {"units": ranks[0]}), (right, {})], names)

    return _of_matrix(layer, kernel, (each, each), each, parts, None not in counts, margin)


def _embedding(layer: Any, table: Floats, calls: Sequence[_Call], margin: float) -> _Way | str:
    counts = [_product(call.given[1:]) for call in calls]
    each = sum(count or 1 for count in counts)

    def parts(found: SingularValues, ranks: _Ranks, names: Iterator[str]) -> list[_Part]:
        left, right = found.factors(*ranks)
        changes = {"name": next(names), "output_dim": ranks[0], "activity_regularizer": None}
        narrow = type(layer).from_config({**layer.get_config(), **changes})
        widening = keras.layers.Dense(
            layer.output_dim,
            use_bias=False,
            kernel_regularizer=layer.embeddings_regularizer,
            activity_regularizer=layer.activity_regularizer,
            dtype=layer.dtype_policy,
            name=layer.name,
        )
        return [_Part(narrow, [left]), _Part(widening, [right])]

    return _of_matrix(layer, table, (0, each), 0, parts, None not in counts, margin)


@dataclass(frozen=True)
class _Places:
    """How many places a convolution has, summed over all calls.

    Attributes:
        given: Of what it is given.
        between: As high as what it gives and as wide as what it is given.
        gives: Of what it gives.
        is_counted: Whether all sizes are known; where not, there is one place in what it gives.
    """

    given: int
    between: int
    gives: int
    is_counted: bool

    @classmethod
    def of(cls, layer: Any, calls: Sequence[_Call]) -> _Places:
        """Return the places of a `Conv2D`."""
        axes = slice(2, 4) if layer.data_format == "channels_first" else slice(1, 3)
        sums, is_counted = np.zeros(3, np.int64), True
        for call in calls:
            sizes = [*call.given[axes], *call.gives[axes]]
            if None in sizes:
                sizes, is_counted = [*layer.strides, 1, 1], False
            high, wide, tall, broad = (size or 1 for size in sizes)
            sums += (high * wide, tall * wide, tall * broad)
        given, between, gives = sums.tolist()
        return cls(given, between, gives, is_counted)


_POINTWISE = {"strides": (1, 1), "dilation_rate": (1, 1), "padding": "valid"}


def _channel(layer: Any, kernel: Floats, places: _Places, margin: float) -> _Way | str:
    def parts(found: SingularValues, ranks: _Ranks, names: Iterator[str]) -> list[_Part]:
        core, last = channel_kernels(*found.factors(*ranks), kernel.shape)
        return _convolutions(layer, [(core, {}), (last, _POINTWISE)], names)

    each, matrix = places.gives, channel_matrix(kernel)
    return _of_matrix(layer, matrix, (each, each), each, parts, places.is_counted, margin)


def _spatial(layer: Any, kernel: Floats, places: _Places, margin: float) -> _Way | str:
    def parts(found: SingularValues, ranks: _Ranks, names: Iterator[str]) -> list[_Part]:
        down, across = spatial_kernels(*found.factors(*ranks), kernel.shape)
        (stride, other), (rate, another) = layer.strides, layer.dilation_rate
        changes = {"strides": (stride, 1), "dilation_rate": (rate, 1)}
        others = {"strides": (1, other), "dilation_rate": (1, another)}
        return _convolutions(layer, [(down, changes), (across, others)], names)

    each, matrix = (places.between, places.gives), spatial_matrix(kernel)
    return _of_matrix(layer, matrix, each, places.gives, parts, places.is_counted, margin)


def _of_matrix(
    layer: Any,
    matrix: Floats,
    uses: tuple[int, int],
    uses_now: int,
    parts: Callable[[SingularValues, _Ranks, Iterator[str]], list[_Part]],
    is_counted: bool,
    margin: float,
) -> _Way | str:
    """Return the way to write a layer as two whose kernels are the factors of a matrix, or why there is none.

    Args:
        layer: The layer.
        matrix: Its kernel as a matrix.
        uses: How often each weight of the first and of the second factor is multiplied with.
        uses_now: How often each of the matrix is.
        parts: Makes the two layers.
        is_counted: Whether these numbers are known.
        margin: The share that has to be saved.
    """
    rows, columns = matrix.shape
    if not largest_paying_rank(rows, columns, margin):
        return f"its kernel, {rows} x {columns} as a matrix, is too small for any rank to pay"
    found = SingularValues.of(matrix)
    rank = np.arange(1.0, len(found.values) + 1)
    return _Way(
        layer,
        kept=found.kept,
        macs=rank * (rows * uses[0] + columns * uses[1]),
        weights=rank * (rows + columns),
        macs_now=matrix.size * uses_now,
        weights_now=matrix.size,
        is_counted=is_counted,
        margin=margin,
        parts=lambda ranks, names: parts(found, ranks, names),
    )


def _tucker(layer: Any, kernel: Floats, places: _Places, margin: float) -> _Way | str:
    high, wide, inputs, outputs = kernel.shape
    found = Tucker.of(kernel)
    given, gives = np.ogrid[1 : inputs + 1, 1 : outputs + 1]
    # All channels of one side are left as they are, without a convolution for them.
    before = np.where(given < inputs, inputs * given, 0.0)
    core = high * wide * given * gives
    behind = np.where(gives < outputs, gives * outputs, 0.0)

    def parts(ranks: _Ranks, names: Iterator[str]) -> list[_Part]:
        first, middle, last = found.factors((ranks[0], ranks[1]))
        chain: list[tuple[Floats, Mapping[str, Any]]] = [(middle, {})]
        if ranks[0] < inputs:
            chain.insert(0, (first[None, None], _POINTWISE))
        if ranks[1] < outputs:
            chain.append((last[None, None], _POINTWISE))
        return _convolutions(layer, chain, names)

    return _Way(
        layer,
        kept=found.kept,
        macs=before * places.given + (core + behind) * places.gives,
        weights=before + core + behind,
        macs_now=kernel.size * places.gives,
        weights_now=kernel.size,
        is_counted=places.is_counted,
        margin=margin,
        parts=parts,
    )


_Chain = Sequence[tuple[Floats, Mapping[str, Any]]]


def _convolutions(layer: Any, chain: _Chain, names: Iterator[str]) -> list[_Part]:
    """Return convolutions with kernels of shape HWCK, each like `layer` but for some of its configuration."""
    sized = [
        (kernel, {"filters": kernel.shape[-1], "kernel_size": kernel.shape[:2], **changes})
        for kernel, changes in chain
    ]
    return _parts_like(layer, sized, names)


def _parts_like(layer: Any, chain: _Chain, names: Iterator[str]) -> list[_Part]:
    """Return layers with these kernels, each like `layer` but for some of its configuration; the last has its bias."""
    parts = []
    for kernel, changes in chain[:-1]:
        plain = {"use_bias": False, "activation": None, "activity_regularizer": None}
        config = {**layer.get_config(), **plain, **changes, "name": next(names)}
        parts.append(_Part(type(layer).from_config(config), [kernel]))
    kernel, changes = chain[-1]
    last = type(layer).from_config({**layer.get_config(), **changes})
    biases = [keras.ops.convert_to_numpy(layer.bias)] if layer.use_bias else []
    return [*parts, _Part(last, [kernel, *biases])]


def _product(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def _by_energy(
    ways: Mapping[str, _Way], energy: float
) -> tuple[dict[str, _Ranks], dict[str, str]]:
    """Return the cheapest ranks of each layer that keep as much energy, and the layers for which these don't pay."""
    chosen: dict[str, _Ranks] = {}
    left: dict[str, str] = {}
    for name, way in ways.items():
        enough = keeps(way.kept, energy)
        ranks = way.cheapest(enough & way.pays)
        if ranks:
            chosen[name] = ranks
        else:
            needed = _ranks(way.cheapest(enough) or (), way.kept.shape)
            left[name] = (
                f"keeping {energy:.0%} of its energy takes {needed}, which saves too little"
            )
    return chosen, left


_Error = Callable[[str, _Way, _Ranks], float]


def _by_budget(
    ways: Mapping[str, _Way], share: float, error: _Error | None
) -> tuple[dict[str, _Ranks], dict[str, str]]:
    """Return ranks that together keep a budget and lose least, and the layers that are not factored, with the reason."""
    left = {name: _NO_PRODUCTS for name, way in ways.items() if not way.macs_now}
    free = [name for name, way in ways.items() if not way.is_counted and name not in left]
    if free:
        raise ParameterError(
            message(
                f"multiply-accumulates can't be counted where sizes are free, as those of '{free[0]}' are.",
                "Fix the sizes of the model's inputs, or choose ranks by energy.",
                next_step="energy=0.9, macs=None",
            )
        )
    treated = {name: way for name, way in ways.items() if name not in left}
    options = {name: np.flatnonzero(way.pays) for name, way in treated.items()}
    # As it is comes first: it costs what it does now, and loses nothing.
    costs = [np.append(way.macs_now, way.macs.flat[options[n]]) for n, way in treated.items()]
    losses = [
        np.append(0.0, (1 - way.kept.flat[options[n]]) * _worth(n, way, options[n], error))
        for n, way in treated.items()
    ]
    budget = share * sum(way.macs_now for way in treated.values())
    places = within_budget(costs, losses, budget)
    if places is None:
        least = sum(float(cost.min()) for cost in costs) / (budget / share)
        raise ParameterError(
            f"a share of {share:g} of the multiply-accumulates can't be reached: at rank 1 all layers that can be "
            f"factored come to {least:.2g}"
        )
    chosen = {
        name: way.ranks(options[name][place - 1])
        for (name, way), place in zip(treated.items(), places, strict=True)
        if place
    }
    whole = dict.fromkeys((name for name in treated if name not in chosen), _KEPT_WHOLE)
    return chosen, {**left, **whole}


_NO_PRODUCTS = "a look-up has no multiply-accumulates to save"
_KEPT_WHOLE = "the budget is met without it, or no rank of it pays"


def _worth(name: str, way: _Way, options: NDArray[np.intp], error: _Error | None) -> float:
    """Return what a layer would lose with all of its energy, as an estimate: one, or what trying it tells."""
    if error is None:
        # Not by its weights: in ResNet-8 that has the early layers pay, which have few weights and many places.
        return 1.0
    lost = 1 - way.kept.flat[options]
    telling = np.flatnonzero(lost > _LEAST_LOST)
    if not len(telling):
        return 0.0
    half = telling[np.argmin(np.abs(way.macs.flat[options[telling]] - way.macs_now / 2))]
    return error(name, way, way.ranks(options[half])) / float(lost[half])


_LEAST_LOST = 1e-9  # where less of the energy is lost, what that does to the answers is rounding


def _trial(model: Any, error_of: Callable[[Any], float]) -> _Error:
    """Return what tells how much more wrong a model is with one layer factored."""
    before = error_of(model)

    def error(name: str, way: _Way, ranks: _Ranks) -> float:
        found = error_of(_rebuilt(model, {name: (way, ranks)})) - before
        return max(found, 0.0) if math.isfinite(found) else _WORST

    return error


_WORST = 1e30  # what no answers cost that are no numbers; finite, so that nothing lost still costs nothing


def _graph_of(layer: Any) -> Any:
    """Return the graph of a model whose layers Keras itself calls; None for any other layer or operation."""
    graph = getattr(layer, "_functional", None) or layer
    is_own = isinstance(graph, keras.Function) and type(layer).call.__module__.startswith("keras.")
    return graph if is_own else None


def _nodes(graph: Any) -> Iterator[Any]:
    """Yield the places where a graph calls an operation, in the order of work."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if not node.is_input:
                yield node


def _calls(graph: Any) -> Iterator[_Call]:
    """Yield the places where layers stand, those within a model once for each place of that model."""
    for node in _nodes(graph):
        inner = _graph_of(node.operation)
        if inner is not None:
            yield from _calls(inner)
        else:
            given, gives = node.input_tensors[0].shape, node.outputs[0].shape
            yield _Call(node.operation, tuple(given), tuple(gives))


def _rebuilt(model: Any, replaced: Mapping[str, tuple[_Way, _Ranks]]) -> Any:
    """Return a copy of a model in which some layers are others, compiled as the model is."""
    taken = {node.operation.name for node in _nodes_within(_graph_of(model))}
    parts = {}
    for way, ranks in replaced.values():
        names = (f"{way.layer.name}_factor{number}" for number in itertools.count(1))
        parts[id(way.layer)] = way.parts(ranks, _untaken(names, taken))
    rebuilding = _Rebuilding(parts)
    made = rebuilding.model(model)
    rebuilding.fill()
    if getattr(model, "compiled", False):
        _compile_alike(made, model)
    return made


def _nodes_within(graph: Any) -> Iterator[Any]:
    for node in _nodes(graph):
        yield node
        inner = _graph_of(node.operation)
        if inner is not None:
            yield from _nodes_within(inner)


def _untaken(names: Iterator[str], taken: set[str]) -> Iterator[str]:
    """Yield the names that nothing has, each of which is taken then."""
    for name in names:
        if name not in taken:
            taken.add(name)
            yield name


@dataclass(frozen=True)
class _Rebuilding:
    """A model being copied, each layer once wherever it stands.

    Attributes:
        parts: What stands for some layers, by their `id`.
        made: What stands for each operation that was come by, by its `id`: one operation, or several in a row.
        copied: Layers with their copies, whose weights are still their own.
    """

    parts: Mapping[int, Sequence[_Part]]
    made: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    copied: list[tuple[Any, Any]] = field(default_factory=list)

    def model(self, original: Any) -> Any:
        """Return the copy of a Functional or a Sequential model, without its weights."""
        graph = _graph_of(original)
        inputs = keras.tree.map_structure(_input_like, graph._inputs_struct)
        named = {"name": original.name, "trainable": original.trainable}
        if isinstance(original, keras.Sequential):
            layers = [made for layer in original.layers for made in self.row(layer)]
            return keras.Sequential([inputs, *layers], **named)
        # Keras copies models by the same way in `keras.models.clone_model`, which puts one layer in the place of one.
        outputs = graph._run_through_graph(inputs, operation_fn=self.row, call_fn=_call_in_a_row)
        return keras.Model(inputs, outputs, **named)

    def row(self, operation: Any) -> tuple[Any, ...]:
        """Return what stands for an operation: one, or several in a row."""
        if id(operation) not in self.made:
            self.made[id(operation)] = self._row(operation)
        return self.made[id(operation)]

    def fill(self) -> None:
        """Give all copies, which are built by now, their weights."""
        for original, copy in self.copied:
            with _copying(original):
                _copy_state(original, copy)
        for part in itertools.chain.from_iterable(self.parts.values()):
            part.layer.set_weights(part.weights)

    def _row(self, operation: Any) -> tuple[Any, ...]:
        if id(operation) in self.parts:
            return tuple(part.layer for part in self.parts[id(operation)])
        if _graph_of(operation) is not None:
            return (self.model(operation),)
        with _copying(operation):
            copy = _copy(operation)
        if isinstance(operation, keras.Layer):
            self.copied.append((operation, copy))
        return (copy,)


def _call_in_a_row(operations: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
    result = operations[0](*args, **kwargs)
    for operation in operations[1:]:
        result = operation(result)
    return result


def _input_like(tensor: Any) -> Any:
    """Return a symbolic input such as the one that `tensor` is."""
    layer = tensor._keras_history.operation
    return type(layer).from_config(layer.get_config()).output


def _copy(operation: Any) -> Any:
    """Return another operation of the same configuration."""
    kind = type(operation)
    return keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(operation),
        custom_objects={kind.__name__: kind},
        # The code that a Lambda would bring along is in this process already.
        safe_mode=False,
    )


def _copy_state(original: Any, copy: Any) -> None:
    """Give a layer, and those within, the weights and vocabularies of another of the same configuration."""
    pairs = zip(original._flatten_layers(), copy._flatten_layers(), strict=True)
    for one, other in pairs:
        store: dict[str, Any] = {}
        one.save_own_variables(store)
        other.load_own_variables(store)
        if hasattr(one, "save_assets"):
            with tempfile.TemporaryDirectory(prefix="strop-") as folder:
                one.save_assets(folder)
                other.load_assets(folder)


@contextlib.contextmanager
def _copying(layer: Any) -> Iterator[None]:
    """Say which layer it is that can't be copied, whatever its own code raises."""
    try:
        yield
    except Exception as error:
        raise ModelError(
            message(
                f"the layer '{layer.name}', a {type(layer).__name__}, can't be copied: {error}",
                "A copy is made of what its get_config() says and of its weights, as by saving and loading.",
            )
        ) from error


def _compile_alike(model: Any, other: Any) -> None:
    """Compile `model` as `other` is; without its metrics where its loss can't be written down."""
    try:
        model.compile_from_config(other.get_compile_config())
    except (TypeError, ValueError):  # functions of the user's, which Keras finds no names for
        optimizer = type(other.optimizer).from_config(other.optimizer.get_config())
        model.compile(optimizer=optimizer, loss=other.loss)
