"""Affine integer grids: what quantized values can stand for.

Eq. 1 of Jacob et al., *Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference*, CVPR 2018 (arXiv:1712.05877): ``real = scale · (code − zero_point)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Grid:
    """The evenly spaced real values that integer codes can stand for.

    These hold for every grid:

    * ``scale.shape == zero_point.shape``, and both broadcast against the array being coded;
    * ``scale > 0``;
    * ``low <= zero_point <= high``, so real 0.0 always has an exact code: zero padding and
      ReLU cutoffs stay exact after quantization.

    Attributes:
        scale: Real distance between neighbouring codes, in the unit of the data.
        zero_point: The code that stands for real 0.0.
        low: Smallest code, inclusive (−128 for int8).
        high: Largest code, inclusive (127 for int8).
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    low: int
    high: int

    def encode(self, real: NDArray[Any]) -> NDArray[np.int32]:
        """Return the code nearest to each value; what lies outside the grid gets its end.

        Raises:
            ValueError: If a value is NaN, which no code stands for.
        """
        if np.isnan(real).any():
            raise ValueError("expected values to encode, got NaN")
        steps = np.rint(np.asarray(real, np.float64) / self.scale) + self.zero_point
        codes: NDArray[np.int32] = np.clip(steps, self.low, self.high).astype(np.int32)
        return codes

    def decode(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """Return the real value that each code stands for."""
        steps = np.asarray(codes, np.int64) - self.zero_point
        return (steps * self.scale.astype(np.float64)).astype(np.float32)


def grid_for_range(minimum: NDArray[Any], maximum: NDArray[Any], *, bits: int = 8) -> Grid:
    """Return the finest signed grid that covers ``[minimum, maximum]`` and 0.0.

    Args:
        minimum: Smallest real value to represent, one per channel; any shape.
        maximum: Largest real value to represent; same shape as `minimum`.
        bits: Width of a code, from 2 to 16.

    Returns:
        A grid with ``2**bits`` codes; its scale and zero point have the shape of `minimum`.

    Raises:
        ValueError: If a minimum exceeds its maximum or either is NaN, or `bits` is outside 2..16.

    Example:
        >>> grid = grid_for_range(np.array(-1.0), np.array(3.0))
        >>> float(grid.scale).__round__(5), int(grid.zero_point)
        (0.01569, -64)
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"bits must lie in 2..16, not {bits}")
    if not np.all(minimum <= maximum):  # asked this way round, NaN fails too
        raise ValueError(f"expected minimum <= maximum, got {minimum=}, {maximum=}")
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    # Stretching the range to include 0.0 is what makes the zero point land on a code.
    minimum, maximum = np.minimum(minimum, 0.0), np.maximum(maximum, 0.0)
    span = maximum - minimum
    # An all-zero channel has no span; any positive scale codes it exactly.
    scale = np.maximum(span / (high - low), np.finfo(np.float32).tiny).astype(np.float32)
    zero_point = np.clip(np.rint(low - minimum / scale), low, high).astype(np.int32)
    return Grid(scale, zero_point, low, high)
