"""Weight clustering, under the names of `tfmot.clustering`."""

from strop.compat.tfmot.clustering import keras

__all__ = ["keras"]
