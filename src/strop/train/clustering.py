"""Weight clustering: the weights of each kernel of a live Keras model share a few values, while it is taught and after.

Let the weights of cluster j, n_j of them, have the value c_j. An optimizer moves each of them by itself; a constraint of
their variable, which Keras applies within the compiled step right after that, then gives each the mean of its cluster,
the nearest point at which they are equal again. For gradient descent at the rate η on weights with the gradients g_i,

    c_j  ←  mean over i in j of (c_j − η g_i)  =  c_j − η · (1/n_j) Σ g_i,

which is gradient descent on the centroids themselves. Their gradient is the sum of their weights' (Eq. 3 of Han, Mao,
Dally, *Deep Compression*, ICLR 2016, arXiv:1510.00149); the mean is taken so that the rate that suits the weights suits
the centroids too, of which one may stand for ten weights and another for ten thousand. Momentum is linear in the
gradients, so that with it the same holds. Of optimizers that scale each weight's step (Adam) it is the mean of the
steps, which is the smaller the less they agree: they bear a higher rate than without clusters.

Nothing is around the layers: the model saves, loads, clones and exports as what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from strop.core.errors import InputError, ModelError, ParameterError, message
from strop.numerics.clustering import (
    INITIALIZATIONS,
    Clusters,
    clustered,
    clusters_of,
    distinct_values,
    reclustered,
)
from strop.train.exclusions import Exclusion
from strop.train.kernels import Kernel, kernels_of


@dataclass(frozen=True)
class Clustered:
    """What clustering made of a model.

    Attributes:
        values: How many values the weights of each layer that was treated have: the most that a kernel of it has, or a
            channel where channels have clusters of their own.
        left_alone: The layers with weights that were not, with the reason.
    """

    values: Mapping[str, int]
    left_alone: Mapping[str, str]


def cluster(
    model: Any,
    clusters: int = 16,
    *,
    initialization: str = "kmeans_plus_plus",
    per_channel: bool = False,
    preserve_sparsity: bool = True,
    exclude: Sequence[Exclusion] = (),
    seed: int = 0,
) -> Clustered:
    """Give the weights of each kernel a few values, in place and at once, without training.

    Args:
        model: A built `keras.Model`; it is changed.
        clusters: Most values of a kernel, or of a channel; from 2.
        initialization: Where the values are sought first, as in `Clustering`.
        per_channel: Whether each output channel has values of its own.
        preserve_sparsity: Whether zeros stay zeros, one of the values being theirs.
        exclude: Layers to leave alone, as in `strop.train.kernels.kernels_of`.
        seed: For what is drawn.

    Raises:
        ParameterError: If there are to be fewer than 2 clusters, or no such `initialization` is known.
        ModelError: If the model is not built, or has weights that are NaN or infinite.
        UnknownNameError: If a name in `exclude` is no layer's and no class's.
    """
    return Clustering(
        model,
        clusters,
        initialization=initialization,
        per_channel=per_channel,
        preserve_sparsity=preserve_sparsity,
        exclude=exclude,
        seed=seed,
    ).report()


def keep_clusters(
    model: Any,
    *,
    most: int = 256,
    preserve_sparsity: bool = True,
    exclude: Sequence[Exclusion] = (),
) -> KeptClusters:
    """Return a Keras callback that keeps weights equal that are equal now, while their values are trained.

    A kernel counts as clustered where there are at least twice as many weights as values; else where that holds in each
    of its channels.

    Args:
        model: A built `keras.Model`, clustered before.
        most: The most values that a clustered kernel, or a channel of it, may have.
        preserve_sparsity: Whether zeros stay zeros.
        exclude: Layers whose weights may differ, as in `strop.train.kernels.kernels_of`.

    Raises:
        ModelError: If the model is not built.
        UnknownNameError: If a name in `exclude` is no layer's and no class's.
    """
    kernels, left = kernels_of(model, exclude)
    shared = []
    for kernel in kernels:
        found = SharedValues.equal(kernel, most, keeps_zeros=preserve_sparsity)
        if found is None:
            left[kernel.layer] = f"{kernel.variable.name}: its weights share no values"
        else:
            shared.append(found)
    return KeptClusters(shared, left)


class _Sharing(keras.callbacks.Callback):  # type: ignore[misc]
    """A Keras callback that has clusters within the training step, from its begin to its end.

    Where `fit` is interrupted they stay there; `release` ends it.

    Attributes:
        kernels: What is clustered.
        left_alone: The layers with weights that are not, with the reason.
    """

    def __init__(self, shared: Sequence[SharedValues], left_alone: Mapping[str, str]) -> None:
        super().__init__()
        self.kernels = tuple(one.kernel for one in shared)
        self.left_alone = dict(left_alone)
        self._shared = tuple(shared)

    def on_train_begin(self, logs: Any = None) -> None:
        """Put the clusters into the step."""
        if keras.backend.backend() == "jax":
            raise InputError(
                message(
                    "clusters can't be changed in a step that JAX has compiled.",
                    "They can with TensorFlow beneath Keras.",
                    next_step="export KERAS_BACKEND=tensorflow",
                )
            )
        for shared in self._shared:
            shared.hold()
        self._compile_anew()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Go by the clusters that the weights have, where something else set them: training that is resumed, say."""
        self._settle()

    def on_train_end(self, logs: Any = None) -> None:
        """Take the clusters out of the step and leave exactly their values, whatever averaged or restored weights last."""
        self._settle()
        self.release()
        self._compile_anew()

    def release(self) -> None:
        """Take the clusters away, and give variables back the constraints that they had."""
        for shared in self._shared:
            shared.release()

    def report(self) -> Clustered:
        """Return how many values the weights of each layer have now, and what was left alone."""
        values: dict[str, int] = {}
        for shared in self._shared:
            layer = shared.kernel.layer
            values[layer] = max(values.get(layer, 0), shared.count())
        return Clustered(values, self.left_alone)

    def _settle(self) -> None:
        for shared in self._shared:
            shared.settle()

    def _compile_anew(self) -> None:
        """Drop the compiled step: constraints are looked up while it is compiled, and never after."""
        if getattr(self.model, "train_function", None) is not None:
            self.model.make_train_function(force=True)


@final
class KeptClusters(_Sharing):
    """Keeps weights equal that are equal; see `keep_clusters`."""


@final
class Clustering(_Sharing):
    """Clusters a model's weights at once and, as a Keras callback, keeps them in clusters while these are trained.

    Prune before, where that is wanted too: zeros have a cluster of their own, that masks chosen later are no part of.

    Attributes:
        kernels: What is clustered.
        left_alone: The layers with weights that are not, with the reason.

    Example:
        >>> clustering = Clustering(model, 16)               # doctest: +SKIP
        >>> model.fit(x, y, callbacks=[clustering])          # doctest: +SKIP
        >>> clustering.report().values                       # doctest: +SKIP
        {'conv2d': 16, 'dense': 16}
    """

    def __init__(
        self,
        model: Any,
        clusters: int = 16,
        *,
        initialization: str = "kmeans_plus_plus",
        per_channel: bool = False,
        preserve_sparsity: bool = True,
        exclude: Sequence[Exclusion] = (),
        renew_every: int | None = None,
        seed: int = 0,
    ) -> None:
        """Cluster the weights of `model`, in place.

        Args:
            model: A built `keras.Model`, the one trained or one within it; it is changed.
            clusters: Most values of a kernel, or of a channel; from 2.
            initialization: Where the values are sought first: ``kmeans_plus_plus``, ``linear``, ``density``, ``random``;
                see `strop.numerics.clustering.INITIALIZATIONS`.
            per_channel: Whether each output channel has values of its own.
            preserve_sparsity: Whether zeros stay zeros, one of the values being theirs.
            exclude: Layers to leave alone, as in `strop.train.kernels.kernels_of`.
            renew_every: Steps after which weights may change their cluster, by where they would be if each had moved by
                itself; that takes a number a weight more. None to have them stay.
            seed: For what is drawn.

        Raises:
            ParameterError: If there are to be fewer than 2 clusters, no such `initialization` is known, or
                `renew_every` is below 1.
            ModelError: If the model is not built, or has weights that are NaN or infinite.
            UnknownNameError: If a name in `exclude` is no layer's and no class's.
        """
        mistakes = _mistakes(clusters, initialization, renew_every)
        if mistakes:
            raise ParameterError("\n".join(mistakes))
        kernels, left = _large_enough(clusters, per_channel, *kernels_of(model, exclude))
        _refuse_infinite(kernels)
        shared = [
            SharedValues.clustered(
                kernel,
                clusters,
                initialization=initialization,
                channel_axes=_channel_axes(kernel) if per_channel else (),
                keeps_zeros=preserve_sparsity,
                remembers=renew_every is not None,
                seed=seed,
            )
            for kernel in kernels
        ]
        for one in shared:
            one.write(one.clusters)
        super().__init__(shared, left)
        self._renew_every = renew_every
        self._steps = self._begun = 0  # since the last renewal, and of this epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Go by the clusters that the weights have, where something else set them."""
        super().on_epoch_begin(epoch, logs)
        self._begun = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Renew the clusters where it is time."""
        if self._renew_every is None:
            return
        # Several steps may lie between two calls (`steps_per_execution`).
        self._steps, self._begun = self._steps + batch + 1 - self._begun, batch + 1
        if self._steps >= self._renew_every:
            self._steps = 0
            self.renew()

    def renew(self) -> None:
        """Have each weight in the cluster that it would be nearest to, had it moved by itself so far.

        Nothing happens without `renew_every`, nor where weights are NaN.
        """
        for shared in self._shared:
            shared.renew()


class _Around(keras.constraints.Constraint):  # type: ignore[misc]
    """A constraint around the one that a variable has, until it is spent: then it does nothing more than that one.

    A spent one may have to stay, where another was put around it meanwhile; so each time takes one of its own.
    """

    def __init__(self, within: Any, project: Callable[[Any], Any]) -> None:
        self.within, self._project = within, project
        self._is_held = True

    def __call__(self, weights: Any) -> Any:
        if self.within is not None:
            weights = self.within(weights)
        return self._project(weights) if self._is_held else weights

    def take_from(self, variable: Any) -> None:
        """Be spent, and give the variable back the first constraint that is not."""
        self._is_held = False
        variable.constraint = _unspent(variable.constraint)


def _unspent(constraint: Any) -> Any:
    """Return the first constraint that is not spent; masks of pruning that are not held any more are, too."""
    while not getattr(constraint, "_is_held", True):
        constraint = constraint.within
    return constraint


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
        self._around: _Around | None = None
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
        cls, kernel: Kernel, most: int = 256, *, keeps_zeros: bool = True, is_told: bool = False
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

    def hold(self) -> None:
        """Put the clusters around the variable's constraint."""
        if self._around is None:
            variable = self.kernel.variable
            self._around = _Around(_unspent(variable.constraint), self._step)
            variable.constraint = self._around

    def release(self) -> None:
        """Give the variable back its constraint."""
        if self._around is not None:
            self._around.take_from(self.kernel.variable)
            self._around = None

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
        if self._agrees(weights) or not _is_finite(weights):
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
        if not _is_finite(alone):  # whoever watches the loss ends the training
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

    def _step(self, weights: Any) -> Any:
        """Return what the optimizer made of the weights as the means of their clusters, within the compiled step."""
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


def _variable(value: NDArray[Any], dtype: str, name: str) -> Any:
    return keras.Variable(value, trainable=False, dtype=dtype, name=name)


def _channel_axes(kernel: Kernel) -> tuple[int, ...]:
    """Return the axes that number a kernel's output channels: what it does not sum over; a look-up's numbers' places."""
    rank = len(kernel.variable.shape)
    if not kernel.summed:
        return (rank - 1,)
    return tuple(axis for axis in range(rank) if axis not in kernel.summed)


def _in_a_channel(shape: Sequence[int], channel_axes: Sequence[int]) -> int:
    """Return how many weights a channel has."""
    return int(
        np.prod([size for axis, size in enumerate(shape) if axis not in channel_axes], dtype=int)
    )


def _axes_of_clusters(
    kernel: Kernel, most: int, *, is_told: bool = False
) -> tuple[int, ...] | None:
    """Return the axes that number the channels in which weights are clustered; None where they are not."""
    weights = kernel.weights
    for axes in ((), _channel_axes(kernel)):
        count = distinct_values(weights, channel_axes=axes)
        size = _in_a_channel(weights.shape, axes)
        # A kernel of one value was never trained, and would never differ again.
        if 1 < count <= min(most, size - 1 if is_told else size // 2):
            return axes
    return None


def _large_enough(
    clusters: int, per_channel: bool, kernels: Sequence[Kernel], left_alone: Mapping[str, str]
) -> tuple[list[Kernel], dict[str, str]]:
    """Return the kernels with a weight for each cluster, and the layers left alone, those with others among them."""
    found, left = [], dict(left_alone)
    for kernel in kernels:
        axes = _channel_axes(kernel) if per_channel else ()
        size = _in_a_channel(kernel.variable.shape, axes)
        if size < clusters:
            where = " in a channel" if per_channel else ""
            left[kernel.layer] = (
                f"{kernel.variable.name}: {size} weights{where} are fewer than {clusters} clusters"
            )
        else:
            found.append(kernel)
    return found, left


def _is_finite(weights: NDArray[Any]) -> bool:
    return bool(np.isfinite(weights.astype(np.float64)).all())


def _refuse_infinite(kernels: Sequence[Kernel]) -> None:
    for kernel in kernels:
        if not _is_finite(kernel.weights):
            raise ModelError(
                message(
                    f"weights of the layer '{kernel.layer}' are NaN or infinite, so that they have no clusters.",
                    "Training may have diverged; start from weights of before that.",
                )
            )


def _mistakes(clusters: int, initialization: str, renew_every: int | None) -> list[str]:
    found = []
    if clusters < 2:
        found.append(f"clusters must be at least 2, not {clusters}")
    if initialization not in INITIALIZATIONS:
        known = ", ".join(map(repr, INITIALIZATIONS))
        found.append(f"initialization must be one of {known}, not {initialization!r}")
    if renew_every is not None and renew_every < 1:
        found.append(f"renew_every must be at least 1 step, not {renew_every}")
    return found
