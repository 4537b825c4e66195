"""What keeps zeros and clusters through quantization-aware training, under the names of `tfmot.experimental`."""

from strop.compat.tfmot.experimental import combine

__all__ = ["combine"]
