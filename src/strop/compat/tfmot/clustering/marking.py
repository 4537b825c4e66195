"""Layers whose weights share a few values: the mark that says so, and keeps them together."""

from __future__ import annotations

import enum
from typing import Any, final

import keras
from keras import ops

from strop.compat.tfmot.marked import warn_of_left_alone
from strop.compat.tfmot.marks import KeepingMark, borne
from strop.numerics.clustering import distinct_values
from strop.train.kernels import Kernel
from strop.train.shared_values import SharedValues


class CentroidInitialization(enum.StrEnum):
    """Where the values are sought first; see `strop.numerics.clustering.INITIALIZATIONS`."""

    LINEAR = "linear"
    RANDOM = "random"
    DENSITY_BASED = "density"
    KMEANS_PLUS_PLUS = "kmeans_plus_plus"


@final
@keras.saving.register_keras_serializable(package="strop")
class ClusterWeights(KeepingMark):
    """A weight whose numbers share a few values."""

    method = "get_clusterable_weights"

    def __init__(
        self,
        within: Any = None,
        *,
        number_of_clusters: int,
        cluster_centroids_init: CentroidInitialization | str,
        preserve_sparsity: bool = False,
        cluster_per_channel: bool = False,
        **of_mark: Any,
    ) -> None:
        super().__init__(within, **of_mark)
        if int(number_of_clusters) != number_of_clusters or number_of_clusters < 2:
            raise ValueError(f"number_of_clusters must be 2 or more, not {number_of_clusters!r}")
        self.number_of_clusters = int(number_of_clusters)
        self.initialization = CentroidInitialization(cluster_centroids_init)
        self.preserve_sparsity = preserve_sparsity
        self.cluster_per_channel = cluster_per_channel

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        return {
            **super().get_config(),
            "number_of_clusters": self.number_of_clusters,
            "cluster_centroids_init": self.initialization.value,
            "preserve_sparsity": self.preserve_sparsity,
            "cluster_per_channel": self.cluster_per_channel,
        }

    def found(self, kernel: Kernel) -> SharedValues | None:
        """Return the clusters of a weight, which gets their values; None where it has too few numbers."""
        axes = self._axes
        numbers = kernel.weights.size
        for axis in axes:
            numbers //= kernel.weights.shape[axis]
        if numbers < self.number_of_clusters:
            where = " in a channel" if axes else ""
            reason = f"{numbers} weights{where} are fewer than {self.number_of_clusters} clusters"
            warn_of_left_alone({kernel.layer: reason}, "clustered")
            return None
        shared = SharedValues.clustered(
            kernel,
            self.number_of_clusters,
            initialization=self.initialization.value,
            channel_axes=axes,
            keeps_zeros=self.preserve_sparsity,
        )
        shared.write(shared.clusters)
        return shared

    def are_apart(self, variable: Any) -> bool:
        """Say whether a variable has more values than it may."""
        weights = ops.convert_to_numpy(variable)
        return distinct_values(weights, channel_axes=self._axes) > self.number_of_clusters

    @property
    def _axes(self) -> tuple[int, ...]:
        return self.channel_axes if self.cluster_per_channel else ()

    def settled(self, kept: SharedValues) -> None:
        """Go by the clusters that the weights have, or find others."""
        kept.settle()

    def project(self, kept: SharedValues, weights: Any) -> Any:
        """Return weights as the means of their clusters."""
        return kept.project(weights)

    def refuse_late(self, variable: Any) -> None:
        """Refuse nothing: clusters are found at any time."""


def cluster_now(model: Any, *, only_apart: bool = False) -> None:
    """Give weights that are there, and can be trained, their values; or only those that have too many by now."""
    for variable, mark in borne(model, ClusterWeights):
        if variable.trainable and (not only_apart or mark.are_apart(variable)):
            mark.begin(variable)
