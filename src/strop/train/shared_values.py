"""The values that the weights of a kernel share, kept while they are trained; `strop.train.clustering` says how that works."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from strop.numerics.clustering import (
    Clusters,
    clustered,
    clusters_of,
    distinct_values,
    reclustered,
)
from strop.train.constraints import Within
from strop.train.kernels import Kernel

MOST_VALUES = 256
"""The most values of a kernel, or of a channel of it, that counts as clustered."""


class SharedValues:
    """The clusters of a kernel.

    Each channel has room for as many clusters as it may have at most, so that the compiled step stays as it is where
    weights change theirs.

    Attributes:
        kernel: What is clustered.
        clusters: Which weights are together, and what values they had when that was chosen.
    """

    def __init__(
        self,
        kernel: Kernel,
        clusters: Clusters,
        most: int,
        channel_axes: Sequence[int],
        *,
        keeps_zeros: bool,
        remembers: bool = False,
    ) -> None:
        self.kernel = kernel
        self._most, self._axes, self._keeps_zeros = most, tuple(channel_axes), keeps_zeros
        shape = kernel.variable.shape
        self._room = most * int(np.prod([shape[axis] for axis in self._axes], dtype=int))
        size = int(np.prod(shape))
        # Variables, so that the compiled step sees them change, and is not compiled with a number a weight in it.
        self._assignment = _variable(np.zeros(size), "int32", "assignment")
        self._first = _variable(np.zeros(self._room), "int32", "first_of_cluster")
        self._share = _variable(np.zeros(self._room), "float32", "share_in_cluster")
        self._is_zero = _variable(np.zeros(self._room), "bool", "is_zero")
        self._apart = _variable(np.zeros(size), "float32", "apart") if remembers else None
        self._put(clusters)

    @classmethod
    def clustered(
        cls,
        kernel: Kernel,
        most: int,
        *,
        initialization: str = "kmeans_plus_plus",
        channel_axes: Sequence[int] = (),
        keeps_zeros: bool = True,
        remembers: bool = False,
        seed: int = 0,
    ) -> SharedValues:
        """Return the clusters found for a kernel's weights, which are left as they are; `write` gives them the values.

        Args:
            kernel: One with enough weights, all of them finite.
            most: Most values, in each channel where there are channels.
            initialization: Where the values are sought first; see `strop.numerics.clustering.INITIALIZATIONS`.
            channel_axes: The axes that number the channels; none for all weights together.
            keeps_zeros: Whether zeros stay zeros.
            remembers: Whether `renew` is to be possible.
            seed: For what is drawn.
        """
        found = clustered(
            kernel.weights,
            most,
            initialization=initialization,
            channel_axes=channel_axes,
            preserve_zeros=keeps_zeros,
            seed=seed,
        )
        return cls(kernel, found, most, channel_axes, keeps_zeros=keeps_zeros, remembers=remembers)

    @classmethod
    def equal(
        cls,
        kernel: Kernel,
        most: int = MOST_VALUES,
        *,
        keeps_zeros: bool = True,
        is_told: bool = False,
    ) -> SharedValues | None:
        """Return the clusters that a kernel's weights are in already; None where they share no values.

        Args:
            kernel: Of weights that may be equal.
            most: The most values that it, or a channel of it, may have.
            keeps_zeros: Whether zeros stay zeros.
            is_told: Whether it is known to be clustered, so that any two equal weights are enough of a sign.
        """
        axes = _axes_of_clusters(kernel, most, is_told=is_told)
        if axes is None:
            return None
        found = clusters_of(kernel.weights, channel_axes=axes)
        count = distinct_values(kernel.weights, channel_axes=axes)
        return cls(kernel, found, count, axes, keeps_zeros=keeps_zeros)

    @property
    def variable(self) -> Any:
        """The variable of the kernel."""
        return self.kernel.variable

    def count(self) -> int:
        """Return how many values the weights have; the most of any channel where each has its own."""
        return distinct_values(self.kernel.weights, channel_axes=self._axes)

    def write(self, clusters: Clusters) -> None:
        """Give the weights the values of these clusters, which they are in from now on."""
        self._put(clusters)
        self.kernel.variable.assign(clusters.values)

    def settle(self) -> None:
        """Have the weights in clusters where something but the training step has set them."""
        weights = self.kernel.weights
        if self._agrees(weights) or not is_finite(weights):
            return
        if self.count() <= self._most:
            self._put(clusters_of(weights, channel_axes=self._axes))
        else:
            self.write(self._renewed(weights, weights))

    def renew(self) -> None:
        """Have each weight in the cluster nearest to where it would be if it had moved by itself."""
        if self._apart is None:
            return
        weights = self.kernel.weights
        alone = weights + ops.convert_to_numpy(self._apart).reshape(weights.shape)
        if not is_finite(alone):  # whoever watches the loss ends the training
            return
        found = self._renewed(weights, alone)
        self.write(found)
        self._apart.assign((alone - found.values).reshape(-1))

    def _renewed(self, weights: NDArray[Any], moved: NDArray[Any]) -> Clusters:
        """Return the clusters of weights that have moved from the values that they share."""
        places = self.clusters.assignment.reshape(-1)
        sums = np.bincount(places, weights.reshape(-1).astype(np.float64))
        means = sums / np.bincount(places)
        means[self._zeros] = 0.0
        return reclustered(
            moved,
            Clusters(means, self.clusters.assignment),
            channel_axes=self._axes,
            preserve_zeros=self._keeps_zeros,
        )

    def _put(self, clusters: Clusters) -> None:
        self.clusters = clusters
        places = clusters.assignment.reshape(-1)
        self._zeros = (clusters.centroids == 0) & self._keeps_zeros
        self._heads = np.unique(places, return_index=True)[1]
        unused = (0, self._room - len(self._heads))
        self._assignment.assign(places)
        self._first.assign(np.pad(self._heads, unused))
        self._share.assign(np.pad(1.0 / np.bincount(places), unused))
        self._is_zero.assign(np.pad(self._zeros, unused))

    def _agrees(self, weights: NDArray[Any]) -> bool:
        """Say whether the weights of each cluster are equal, and its zeros zeros."""
        values = weights.reshape(-1)[self._heads]
        is_shared = np.array_equal(values[self.clusters.assignment], weights)
        return is_shared and not values[self._zeros].any()

    def constrain(self, weights: Any, within: Within) -> Any:
        """Return what the optimizer made of the weights as the means of their clusters, within the compiled step."""
        weights = within(weights)
        shared = self.project(weights)
        if self._apart is not None:
            moved = ops.cast(ops.reshape(weights - shared, (-1,)), "float32")
            self._apart.assign(self._apart + moved)
        return shared

    def project(self, weights: Any) -> Any:
        """Return weights as the means of their clusters, also within a compiled step."""
        # Not the sums of the weights: a hundred thousand equal floats added up and divided again are another float,
        # and that at each step. What is summed here is how far they are from one of them, which the step made small.
        dtype = keras.backend.standardize_dtype(weights.dtype)
        flat = ops.cast(
            ops.reshape(weights, (-1,)), "float64" if dtype == "float64" else "float32"
        )
        heads = ops.take(flat, self._first)
        apart = flat - ops.take(heads, self._assignment)
        sums = ops.segment_sum(apart, self._assignment, num_segments=self._room)
        means = heads + sums * ops.cast(self._share, flat.dtype)
        means = ops.where(self._is_zero, ops.zeros((), flat.dtype), means)
        return ops.cast(
            ops.reshape(ops.take(means, self._assignment), self.kernel.variable.shape), dtype
        )


def channels_of(kernel: Kernel) -> tuple[int, ...]:
    """Return the axes that number a kernel's output channels: what it does not sum over; a look-up's numbers' places."""
    rank = len(kernel.variable.shape)
    if not kernel.summed:
        return (rank - 1,)
    return tuple(axis for axis in range(rank) if axis not in kernel.summed)


def size_of_channel(shape: Sequence[int], channel_axes: Sequence[int]) -> int:
    """Return how many weights a channel has."""
    return int(
        np.prod([size for axis, size in enumerate(shape) if axis not in channel_axes], dtype=int)
    )


def are_shared(
    weights: NDArray[Any], channel_axes: Sequence[int] = (), most: int = MOST_VALUES
) -> bool:
    """Say whether weights share a few values, in each channel where there are channels.

    They do where no channel has more values than `most`, and there are at least two weights for each value, zeros left
    out: these come of pruning too. Weights that are one number all were never trained, and would never differ again.
    """
    if not 1 < distinct_values(weights, channel_axes=channel_axes) <= most:
        return False
    values = clusters_of(weights, channel_axes=channel_axes).centroids
    return bool(2 * np.count_nonzero(values) <= np.count_nonzero(weights))


def is_finite(weights: NDArray[Any]) -> bool:
    """Say whether no weight is NaN or infinite."""
    return bool(np.isfinite(weights.astype(np.float64)).all())


def _axes_of_clusters(kernel: Kernel, most: int, *, is_told: bool) -> tuple[int, ...] | None:
    """Return the axes that number the channels in which weights are clustered; None where they are not."""
    weights = kernel.weights
    for axes in ((), channels_of(kernel)):
        if are_shared(weights, axes, most):
            return axes
        size = size_of_channel(weights.shape, axes)
        if is_told and 1 < distinct_values(weights, channel_axes=axes) <= min(most, size - 1):
            return axes
    return None


def _variable(value: NDArray[Any], dtype: str, name: str) -> Any:
    return keras.Variable(value, trainable=False, dtype=dtype, name=name)
