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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from strop.core.errors import ModelError, ParameterError, message
from strop.numerics.clustering import INITIALIZATIONS
from strop.train.constraints import Holding
from strop.train.exclusions import Exclusion
from strop.train.kernels import Kernel, kernels_of
from strop.train.shared_values import (
    MOST_VALUES,
    SharedValues,
    channels_of,
    is_finite,
    size_of_channel,
)


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
    most: int = MOST_VALUES,
    preserve_sparsity: bool = True,
    exclude: Sequence[Exclusion] = (),
) -> KeptClusters:
    """Return a Keras callback that keeps weights equal that are equal now, while their values are trained.

    A kernel counts as clustered where there are at least twice as many weights as values, zeros left out; else where
    that holds within its channels.

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


class _Sharing(Holding):
    """A Keras callback that has clusters within the training step, from its begin to its end; see `Holding`."""

    what = "clusters"

    def __init__(self, shared: Sequence[SharedValues], left_alone: Mapping[str, str]) -> None:
        super().__init__([one.kernel for one in shared], left_alone, shared)
        self._shared = tuple(shared)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Go by the clusters that the weights have, where something else set them: training that is resumed, say."""
        for shared in self._shared:
            shared.settle()

    def report(self) -> Clustered:
        """Return how many values the weights of each layer have now, and what was left alone."""
        values: dict[str, int] = {}
        for shared in self._shared:
            layer = shared.kernel.layer
            values[layer] = max(values.get(layer, 0), shared.count())
        return Clustered(values, self.left_alone)


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
                itself; that takes a number a weight more. Nothing tells the loss of these moves until then: 50 steps of
                Adam were too many for ResNet-8. None to have weights stay where they are.
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
                channel_axes=channels_of(kernel) if per_channel else (),
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


def _large_enough(
    clusters: int, per_channel: bool, kernels: Sequence[Kernel], left_alone: Mapping[str, str]
) -> tuple[list[Kernel], dict[str, str]]:
    """Return the kernels with a weight for each cluster, and the layers left alone, those with others among them."""
    found, left = [], dict(left_alone)
    for kernel in kernels:
        axes = channels_of(kernel) if per_channel else ()
        size = size_of_channel(kernel.variable.shape, axes)
        if size < clusters:
            where = " in a channel" if per_channel else ""
            left[kernel.layer] = (
                f"{kernel.variable.name}: {size} weights{where} are fewer than {clusters} clusters"
            )
        else:
            found.append(kernel)
    return found, left


def _refuse_infinite(kernels: Sequence[Kernel]) -> None:
    for kernel in kernels:
        if not is_finite(kernel.weights):
            raise ModelError(
                message(
                    f"weights of the layer '{kernel.layer}' are NaN or infinite, so that they have no clusters.",
                    "Training may have diverged; start from weights of before that.",
                )
            )


def _mistakes(clusters: int, initialization: str, renew_every: int | None) -> list[str]:
    found = []
    if clusters < 2 or clusters != int(clusters):
        found.append(f"clusters must be a whole number from 2, not {clusters}")
    if initialization not in INITIALIZATIONS:
        known = ", ".join(map(repr, INITIALIZATIONS))
        found.append(f"initialization must be one of {known}, not {initialization!r}")
    if renew_every is not None and renew_every < 1:
        found.append(f"renew_every must be at least 1 step, not {renew_every}")
    return found
