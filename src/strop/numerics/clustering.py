"""Weights that share a few values: where the values lie, which weight takes which, and how both settle.

A tensor of n weights with k values needs ``n·log₂ k`` bits and a table, and what is written down as floats zips to about
that. The values are the centroids of clusters, and sharing is k-means in one dimension: section 3 of Han, Mao, Dally,
*Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and Huffman Coding*, ICLR 2016
(arXiv:1510.00149), where the first three ways to begin are in section 3.1.

In one dimension clusters are intervals, so that all is done on the distinct weights in ascending order: nobody measures
a distance from each weight to each centroid, and the order of the weights can't matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Whole = NDArray[np.int32]

_MOST_ROUNDS = 300


@dataclass(frozen=True)
class Clusters:
    """Weights that share values.

    These hold for all: `assignment` counts into `centroids`, no centroid is without weights, and where there are several
    channels each has centroids of its own, those of the first channel first.

    Attributes:
        centroids: The values, one after the other; within a channel they ascend.
        assignment: For each weight, in the weights' shape, the place of its value in `centroids`.
    """

    centroids: Floats
    assignment: Whole

    @property
    def values(self) -> Floats:
        """The weights, each as its cluster's value."""
        return self.centroids[self.assignment]


def clustered(
    weights: ArrayLike,
    count: int,
    *,
    initialization: str = "kmeans_plus_plus",
    channel_axes: Sequence[int] = (),
    preserve_zeros: bool = False,
    seed: int = 0,
) -> Clusters:
    """Return weights in at most `count` clusters, found by Lloyd's iterations.

    Args:
        weights: Finite numbers; any shape.
        count: Most values, in each channel where there are channels; from 2.
        initialization: Where the centroids begin; see `INITIALIZATIONS`.
        channel_axes: The axes that number the channels, each of which is clustered by itself; none for all together.
        preserve_zeros: Whether the zeros, where there are any, have one of the clusters to themselves, with the value 0
            that no other cluster has.
        seed: For what is drawn; each channel draws of its own.

    Returns:
        The clusters. They are fewer than `count` only where there are fewer distinct weights.

    Raises:
        ValueError: If there are fewer weights than clusters, `count` is below 2, no such `initialization` is known, or a
            weight is not finite.

    Example:
        >>> found = clustered([0.0, 0.9, 1.1, -2.0, 0.0], 3, preserve_zeros=True)
        >>> found.centroids, found.assignment
        (array([-2.,  0.,  1.]), array([1, 2, 2, 0, 1], dtype=int32))
    """
    if count < 2:
        raise ValueError(f"expected at least 2 clusters, got {count}")
    if initialization not in INITIALIZATIONS:
        raise ValueError(
            f"initialization must be one of {', '.join(map(repr, INITIALIZATIONS))}, not {initialization!r}"
        )
    given = np.asarray(weights, np.float64)
    rows = _by_channel(given, channel_axes)
    if rows.shape[1] < count:
        where = "in each channel " if len(channel_axes) else ""
        raise ValueError(
            f"expected at least {count} weights {where}for {count} clusters, got {rows.shape[1]}"
        )
    if not np.isfinite(given).all():
        raise ValueError("expected finite weights, got NaN or infinity")
    begin = INITIALIZATIONS[initialization]
    tables = [
        _shared(_Weights.of(row), count, _drawing(begin, random), zeros_apart=preserve_zeros)
        for row, random in zip(rows, _streams(seed, len(rows)), strict=True)
    ]
    return _joined(tables, rows, given.shape, channel_axes, zeros_apart=preserve_zeros)


def reclustered(
    weights: ArrayLike,
    clusters: Clusters,
    *,
    channel_axes: Sequence[int] = (),
    preserve_zeros: bool = False,
) -> Clusters:
    """Return weights that have moved since in as many clusters, Lloyd's iterations going on from the ones they were in.

    Args:
        weights: Finite numbers, in the shape of the assignment.
        clusters: The clusters that they were in.
        channel_axes: The axes that number the channels, as they were.
        preserve_zeros: Whether what was in a cluster of value 0 stays there and nothing else comes.

    Raises:
        ValueError: If a weight is not finite.
    """
    given = np.asarray(weights, np.float64)
    if not np.isfinite(given).all():
        raise ValueError("expected finite weights, got NaN or infinity")
    if preserve_zeros:
        given = _zeros_kept(given, clusters)
    rows, before = (_by_channel(a, channel_axes) for a in (given, clusters.assignment))
    tables = []
    for row, places in zip(rows, before, strict=True):
        old = clusters.centroids[np.unique(places)]
        apart = preserve_zeros and bool(np.any(old == 0))
        begin = _beginning_at(old[old != 0] if apart else old)
        tables.append(_shared(_Weights.of(row), len(old), begin, zeros_apart=apart))
    return _joined(tables, rows, given.shape, channel_axes, zeros_apart=preserve_zeros)


def clusters_of(weights: ArrayLike, *, channel_axes: Sequence[int] = ()) -> Clusters:
    """Return the clusters that weights are in already: those that are equal, in each channel by itself.

    Example:
        >>> clusters_of([[3.0, 1.0], [3.0, 2.0]], channel_axes=[1]).centroids
        array([3., 1., 2.])
    """
    given = np.asarray(weights, np.float64)
    rows = _by_channel(given, channel_axes)
    return _joined([np.unique(row) for row in rows], rows, given.shape, channel_axes)


def distinct_values(weights: ArrayLike, *, channel_axes: Sequence[int] = ()) -> int:
    """Return how many values weights have; the most that any channel has, where there are channels.

    Example:
        >>> distinct_values([[3.0, 1.0], [3.0, 2.0]]), distinct_values([[3.0, 1.0], [3.0, 2.0]], channel_axes=[1])
        (3, 2)
    """
    ordered = np.sort(_by_channel(np.asarray(weights), channel_axes), axis=1)
    if not ordered.size:
        return 0
    return int((ordered[:, 1:] != ordered[:, :-1]).sum(axis=1).max()) + 1


def initial_centroids(
    weights: ArrayLike, count: int, *, initialization: str = "kmeans_plus_plus", seed: int = 0
) -> Floats:
    """Return where `count` centroids begin, in ascending order; some may be equal.

    Args:
        weights: Finite numbers, one at least.
        count: How many.
        initialization: Where; see `INITIALIZATIONS`.
        seed: For what is drawn.

    Returns:
        All distinct weights where there are no more than `count` of them.

    Example:
        >>> initial_centroids([0.0, 1.0, 2.0, 8.0], 3, initialization="linear")
        array([0., 4., 8.])
        >>> initial_centroids([0.0, 1.0, 2.0, 8.0], 2, initialization="density")
        array([0., 2.])
    """
    known = _Weights.of(np.asarray(weights, np.float64).reshape(-1))
    if len(known.distinct) <= count:
        return known.distinct
    return INITIALIZATIONS[initialization](known, count, np.random.default_rng(seed))


def nearest(weights: ArrayLike, centroids: ArrayLike) -> Whole:
    """Return the place of the centroid nearest to each weight, the lower of two that are equally near.

    It is looked up among the midpoints, in O(n log k).

    Args:
        weights: Numbers; any shape.
        centroids: In ascending order, one at least.

    Example:
        >>> nearest([0.4, 0.5, 0.6, 9.0], [0.0, 1.0, 3.0])
        array([0, 0, 1, 2], dtype=int32)
    """
    midpoints = _midpoints(np.asarray(centroids, np.float64))
    return np.searchsorted(midpoints, np.asarray(weights, np.float64), side="left").astype(
        np.int32
    )


def lloyd(weights: ArrayLike, centroids: ArrayLike) -> Floats:
    """Return centroids moved to the means of the weights nearest to them, again and again until they stay.

    The sum of the squared distances never rises on the way (Lloyd, *Least squares quantization in PCM*, IEEE Transactions
    on Information Theory 28, 1982). A centroid that no weight is nearest to, or that equals another, goes to the weights
    whose squared distances are worst.

    Args:
        weights: Finite numbers, one at least.
        centroids: Where to begin, in any order.

    Returns:
        As many centroids, in ascending order; all distinct weights where there are no more than that.

    Example:
        >>> lloyd([0.0, 1.0, 9.0, 11.0], [0.0, 1.0])
        array([ 0.5, 10. ])
    """
    return _settled(
        _Weights.of(np.asarray(weights, np.float64).reshape(-1)), np.asarray(centroids)
    )


@dataclass(frozen=True)
class _Weights:
    """Weights without their places: distinct ones in ascending order, and how often each is there."""

    distinct: Floats
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, values: Floats) -> _Weights:
        return cls(*np.unique(values, return_counts=True))

    @cached_property
    def sums(self) -> Floats:
        """Each distinct weight as often as it is there."""
        found: Floats = self.distinct * self.counts
        return found

    def without_zeros(self) -> _Weights:
        kept = self.distinct != 0
        return _Weights(self.distinct[kept], self.counts[kept])


def _linear(weights: _Weights, count: int, random: np.random.Generator) -> Floats:
    return np.linspace(weights.distinct[0], weights.distinct[-1], count)


def _density(weights: _Weights, count: int, random: np.random.Generator) -> Floats:
    """Return the middles of `count` shares of the weights that are equal in number."""
    reached = np.cumsum(weights.counts)
    shares = (np.arange(count) + 0.5) / count
    found: Floats = weights.distinct[np.searchsorted(reached, shares * reached[-1])]
    return found


def _random(weights: _Weights, count: int, random: np.random.Generator) -> Floats:
    return np.sort(random.uniform(weights.distinct[0], weights.distinct[-1], count))


def _kmeans_plus_plus(weights: _Weights, count: int, random: np.random.Generator) -> Floats:
    """Return weights drawn one by one, each as likely as the square of its distance to those drawn before.

    Section 2.2 of Arthur, Vassilvitskii, *k-means++: The Advantages of Careful Seeding*, SODA 2007.
    """
    chosen: list[float] = []
    squares = np.ones_like(weights.distinct)
    for _ in range(count):
        reached = np.cumsum(weights.counts * squares)
        if not reached[-1] > 0:  # the weights left are so near that their squares vanish
            chosen += chosen[-1:]
            continue
        place = np.searchsorted(reached, random.random() * reached[-1], side="right")
        chosen.append(float(weights.distinct[min(place, len(reached) - 1)]))
        apart = (weights.distinct - chosen[-1]) ** 2
        squares = apart if len(chosen) == 1 else np.minimum(squares, apart)
    return np.sort(chosen)


_Beginning = Callable[[_Weights, int, np.random.Generator], Floats]

INITIALIZATIONS: dict[str, _Beginning] = {
    "kmeans_plus_plus": _kmeans_plus_plus,
    "linear": _linear,
    "density": _density,
    "random": _random,
}
"""Where centroids begin, by name.

``linear`` spaces them evenly from the smallest weight to the largest, so that the few large ones, which matter most, have
centroids near them; ``density`` puts each in the middle of an equal share of all weights; ``random`` draws them evenly
between smallest and largest; ``kmeans_plus_plus`` draws weights that lie far from those drawn before.
"""


def _shared(
    weights: _Weights, count: int, begin: Callable[[_Weights, int], Floats], *, zeros_apart: bool
) -> Floats:
    """Return the settled centroids of one channel, in ascending order."""
    others = weights.without_zeros() if zeros_apart else weights
    has_zeros = len(others.distinct) < len(weights.distinct)
    left = count - has_zeros
    if len(others.distinct) <= left:
        return weights.distinct
    centroids = _settled(others, begin(others, left))
    if zeros_apart:
        centroids = _off_zero(centroids, others)
    return np.sort(np.append(centroids, 0.0)) if has_zeros else centroids


def _drawing(begin: _Beginning, random: np.random.Generator) -> Callable[[_Weights, int], Floats]:
    return lambda weights, count: begin(weights, count, random)


def _beginning_at(centroids: Floats) -> Callable[[_Weights, int], Floats]:
    return lambda weights, count: centroids


def _off_zero(centroids: Floats, weights: _Weights) -> Floats:
    """Return centroids of weights none of which is 0, a mean that is 0 by chance put where the smallest of them lies.

    Else −1 and 1 in one cluster would come to be zeros.
    """
    places = nearest(weights.distinct, centroids)
    moved = centroids.copy()
    for place in np.flatnonzero(centroids.astype(np.float32) == 0):  # as it will be written down
        members = weights.distinct[places == place]
        moved[place] = members[np.argmin(np.abs(members))]
    return moved


def _settled(weights: _Weights, centroids: Floats) -> Floats:
    """Return what Lloyd's iterations come to."""
    count = len(centroids)
    if len(weights.distinct) <= count:
        return weights.distinct
    found: Floats = np.unique(np.asarray(centroids, np.float64))
    for _ in range(_MOST_ROUNDS):
        moved = _filled_up(weights, _means(weights, found), count)
        if np.array_equal(moved, found):
            break
        found = moved
    return found


def _means(weights: _Weights, centroids: Floats) -> Floats:
    """Return the mean of the weights nearest to each centroid, without those that none is nearest to."""
    inner = np.searchsorted(weights.distinct, _midpoints(centroids), side="right")
    bounds = np.concatenate([[0], inner, [len(weights.distinct)]])
    filled = bounds[1:] > bounds[:-1]
    first, behind = bounds[:-1][filled], bounds[1:][filled]
    # The empty ones left out, each cluster ends where the next begins: what `reduceat` supposes.
    sums = np.add.reduceat(weights.sums, first)
    means = sums / np.add.reduceat(weights.counts, first)
    # A cluster of one value has that value, which (v + v + v) / 3 need not be.
    found: Floats = np.clip(means, weights.distinct[first], weights.distinct[behind - 1])
    return found


def _filled_up(weights: _Weights, centroids: Floats, count: int) -> Floats:
    """Return `count` centroids: these, and as many as are missing where the squared distances are worst."""
    missing = count - len(centroids)
    if not missing:
        return centroids
    apart = weights.distinct - centroids[nearest(weights.distinct, centroids)]
    worst = np.argsort(-weights.counts * apart**2, kind="stable")[:missing]
    return np.unique(np.concatenate([centroids, weights.distinct[worst[apart[worst] != 0]]]))


def _midpoints(centroids: Floats) -> Floats:
    # Not (a + b) / 2, whose sum may pass the largest float.
    return centroids[:-1] / 2 + centroids[1:] / 2


def _assigned(row: Floats, centroids: Floats, *, zeros_apart: bool) -> Whole:
    """Return the place of each weight's centroid; with `zeros_apart` zeros, and nothing else, go to the one at 0."""
    if not zeros_apart or 0.0 not in centroids:
        return nearest(row, centroids)
    others = np.flatnonzero(centroids != 0)
    found: Whole = np.full(row.shape, np.flatnonzero(centroids == 0)[0], np.int32)
    is_other = row != 0
    if is_other.any():
        found[is_other] = others[nearest(row[is_other], centroids[others])]
    return found


def _zeros_kept(weights: Floats, clusters: Clusters) -> Floats:
    """Return weights with those of the clusters of value 0 at 0, and no other there."""
    were_zero = clusters.values == 0
    # A weight that went to 0 by chance is not one of the zeros: its cluster's value is the nearest there is.
    elsewhere = np.where(weights == 0, clusters.values, weights)
    return np.where(were_zero, 0.0, elsewhere)


def _by_channel(weights: NDArray[Any], channel_axes: Sequence[int]) -> NDArray[Any]:
    """Return weights as channels × weights of a channel."""
    axes = [axis % weights.ndim for axis in channel_axes]
    channels = int(np.prod([weights.shape[axis] for axis in axes])) if axes else 1
    return np.moveaxis(weights, axes, range(len(axes))).reshape(channels, -1)


def _joined(
    tables: Sequence[Floats],
    rows: NDArray[Any],
    shape: Sequence[int],
    channel_axes: Sequence[int],
    *,
    zeros_apart: bool = False,
) -> Clusters:
    """Return each channel's weights at the centroids of its table, in the places that they have in the tensor."""
    starts = np.cumsum([0, *map(len, tables[:-1])])
    places = np.stack(
        [
            _assigned(row, table, zeros_apart=zeros_apart) + start
            for row, table, start in zip(rows, tables, starts, strict=True)
        ]
    )
    axes = [axis % len(shape) for axis in channel_axes]
    others = [axis for axis in range(len(shape)) if axis not in axes]
    moved = places.reshape([shape[axis] for axis in (*axes, *others)])
    assignment = np.moveaxis(moved, range(len(axes)), axes)
    return Clusters(np.concatenate(tables), np.ascontiguousarray(assignment, np.int32))


def _streams(seed: int, count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(part) for part in np.random.SeedSequence(seed).spawn(count)]
