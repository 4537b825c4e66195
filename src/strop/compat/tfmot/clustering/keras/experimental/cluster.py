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
from strop.compat.tfmot.copies import copied
from strop.compat.tfmot.marks import mark_layer, put, take_off
from strop.compat.tfmot.sparsity.marking import warn_of_unknown
from strop.compat.tfmot.sparsity.policies import plain_layers
from strop.core.errors import message


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

    make(None)  # what can't be is refused before anything is copied
    if not isinstance(to_cluster, keras.Model):
        layers = to_cluster if isinstance(to_cluster, list) else [to_cluster]
        for layer in layers:
            _refuse_own_algorithm(layer)
            mark_layer(layer, make, ClusterWeights, **kwargs)
            cluster_now(layer)
        return to_cluster
    made = copied(to_cluster)
    for layer in plain_layers(made):
        _refuse_own_algorithm(layer)
        put(layer, make, ClusterWeights)
    warn_of_unknown(made, "clustered")
    cluster_now(made)
    return made


def cluster_scope() -> Any:
    """Return a scope in which models that are being clustered can be loaded."""
    return keras.saving.custom_object_scope({ClusterWeights.__name__: ClusterWeights})


def strip_clustering(model: Any) -> Any:
    """Return a model that is not to be clustered any more: another one, of weights that share exactly their values.

    Raises:
        ValueError: If it is no Sequential or Functional model.
        ModelError: If one of its layers can't be copied.
    """
    made = copied(model)
    cluster_now(made, only_apart=True)  # whatever averaged or restored the weights last
    take_off(made, ClusterWeights)
    return made


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
