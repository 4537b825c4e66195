"""Clustering the weights of models and layers."""

from __future__ import annotations

import abc
from typing import Any

import keras

from strop.compat.tfmot.clustering.marking import (
    CentroidInitialization,
    ClusterWeights,
    cluster_now,
)
from strop.compat.tfmot.marked import marked, scope_of, unmarked
from strop.core.errors import message
from strop.graph.keras_layers import plain_layers


class ClusterableLayer(abc.ABC):
    """For layers of one's own: says which of their weights can be clustered."""

    @abc.abstractmethod
    def get_clusterable_weights(self) -> list[tuple[str, Any]]:
        """Return the variables to cluster, each with its name, once the layer is built."""


def cluster_weights(
    to_cluster: Any,
    number_of_clusters: int,
    cluster_centroids_init: CentroidInitialization | str = CentroidInitialization.KMEANS_PLUS_PLUS,
    preserve_sparsity: bool = False,
    cluster_per_channel: bool = False,
    **kwargs: Any,
) -> Any:
    """Return a model or a layer whose weights share a few values, which are trained as the weights are.

    No callback is needed. Weights that are there get their values at once, others before the first step of training.

    Args:
        to_cluster: A Sequential or Functional model; a layer, built or not; or a list of layers.
        number_of_clusters: Most values of a kernel, or of a channel of it; from 2.
        cluster_centroids_init: Where the values are sought first.
        preserve_sparsity: Whether zeros stay zeros, one of the values being theirs.
        cluster_per_channel: Whether each output channel has values of its own.
        **kwargs: Of a layer: `input_shape` for the first in a Sequential, `name`.

    Returns:
        Another model with copies of the weights, uncompiled; or the same layer.

    Raises:
        ValueError: If it is none of these, or an argument can't be.
        ModelError: If a layer of the model can't be copied.
    """

    def make(within: Any, **of_mark: Any) -> ClusterWeights:
        return ClusterWeights(
            within,
            number_of_clusters=number_of_clusters,
            cluster_centroids_init=cluster_centroids_init,
            preserve_sparsity=preserve_sparsity,
            cluster_per_channel=cluster_per_channel,
            **of_mark,
        )

    for layer in _layers_in(to_cluster):
        _refuse_own_algorithm(layer)
    made = marked(to_cluster, make, ClusterWeights, doing="clustered", **kwargs)
    for part in made if isinstance(made, list) else [made]:
        cluster_now(part)
    return made


def cluster_scope() -> Any:
    """Return a scope in which models that are being clustered can be loaded."""
    return scope_of(ClusterWeights)


def strip_clustering(model: Any) -> Any:
    """Return a model that is not to be clustered any more: another one, of weights that share exactly their values.

    Raises:
        ValueError: If it is no Sequential or Functional model.
        ModelError: If one of its layers can't be copied.
    """
    # Whatever averaged or restored the weights last may have set them apart.
    return unmarked(model, ClusterWeights, lambda made: cluster_now(made, only_apart=True))


def _layers_in(given: Any) -> list[Any]:
    if isinstance(given, keras.Model):
        return list(plain_layers(given))
    return given if isinstance(given, list) else [given]


def _refuse_own_algorithm(layer: Any) -> None:
    find = getattr(layer, "get_clusterable_algorithm", None)
    if find is None or not layer.built:
        return
    for name, _ in layer.get_clusterable_weights():
        if find(name) is not None:
            raise ValueError(
                message(
                    f"the layer '{layer.name}' has an algorithm of its own for the weight '{name}'.",
                    "Values are found by k-means here, of any weights; leave out get_clusterable_algorithm, and say "
                    "cluster_per_channel=True where each channel is to have values of its own.",
                )
            )
