"""Pruning, under the names of `tfmot.sparsity`."""

from strop.compat.tfmot.sparsity import keras

__all__ = ["keras"]
