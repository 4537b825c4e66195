"""Quantization-aware training, under the names of `tfmot.quantization`."""

from strop.compat.tfmot.quantization import keras

__all__ = ["keras"]
