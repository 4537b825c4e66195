"""Which weights are dropped together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strop.numerics.sparsity import UNSTRUCTURED, Block, Mask, NOfM, Pattern, Weights

_POOLINGS = ("AVG", "MAX")


@dataclass(frozen=True)
class BlockOfLargest(Block):
    """Blocks that are ranked by their largest weight, and not by the mean of all."""

    def mask(self, weights: Weights, sparsity: float, axis: int | None) -> Mask:
        """Return the mask of one layer. Raises as `strop.numerics.sparsity.block_mask` does."""
        return super().mask(_largest_of_blocks(np.abs(weights), self.shape), sparsity, axis)


def pattern_of(
    block_size: Sequence[int], pooling: str, sparsity_m_by_n: Sequence[int] | None
) -> Pattern:
    """Return the pattern that the arguments of `prune_low_magnitude` speak of.

    Raises:
        ValueError: If there is no such pattern.
    """
    if pooling not in _POOLINGS:
        raise ValueError(f"block_pooling_type must be 'AVG' or 'MAX', not {pooling!r}")
    if sparsity_m_by_n is not None:
        zeros, of = map(int, sparsity_m_by_n)
        return NOfM(of - zeros, of)
    shape = tuple(map(int, block_size))
    if all(length == 1 for length in shape):
        return UNSTRUCTURED
    return Block(shape) if pooling == "AVG" else BlockOfLargest(shape)


def _largest_of_blocks(magnitudes: Weights, block: Sequence[int]) -> Weights:
    """Return the largest weight of its block for each weight, blocks lying along the last axes."""
    for place, length in enumerate(block):
        axis = magnitudes.ndim - len(block) + place
        size = magnitudes.shape[axis]
        largest = np.maximum.reduceat(magnitudes, np.arange(0, size, length), axis=axis)
        magnitudes = np.take(np.repeat(largest, length, axis=axis), np.arange(size), axis=axis)
    return magnitudes
