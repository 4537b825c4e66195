"""Weight clustering for Keras models, under the names of `tfmot.clustering.keras`."""

from strop.compat.tfmot.clustering.callbacks import ClusteringSummaries
from strop.compat.tfmot.clustering.keras import experimental
from strop.compat.tfmot.clustering.keras.experimental.cluster import (
    ClusterableLayer,
    cluster_scope,
    cluster_weights,
    strip_clustering,
)
from strop.compat.tfmot.clustering.marking import CentroidInitialization

__all__ = [
    "CentroidInitialization",
    "ClusterableLayer",
    "ClusteringSummaries",
    "cluster_scope",
    "cluster_weights",
    "experimental",
    "strip_clustering",
]
