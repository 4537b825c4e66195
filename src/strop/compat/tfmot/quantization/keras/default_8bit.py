"""The default scheme."""

from strop.compat.tfmot.quantization.schemes import Default8BitQuantizeScheme

__all__ = ["Default8BitQuantizeScheme"]
