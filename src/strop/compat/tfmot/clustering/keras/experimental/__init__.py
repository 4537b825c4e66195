"""The clustering that keeps zeros, or has values for each channel; here it is the same function."""

from strop.compat.tfmot.clustering.keras.experimental import cluster
from strop.compat.tfmot.clustering.keras.experimental.cluster import cluster_weights

__all__ = ["cluster", "cluster_weights"]
