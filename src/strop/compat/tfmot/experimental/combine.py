"""Schemes of quantization that keep what pruning and clustering made of the weights."""

from strop.compat.tfmot.quantization.schemes import (
    Default8BitClusterPreserveQuantizeScheme,
    Default8BitPrunePreserveQuantizeScheme,
    strip_clustering_cqat,
)

__all__ = [
    "Default8BitClusterPreserveQuantizeScheme",
    "Default8BitPrunePreserveQuantizeScheme",
    "strip_clustering_cqat",
]
