"""Affine grids: the evenly spaced real numbers that integer codes stand for, and rounding to them.

A code ``q`` stands for ``r = S·(q − Z)``, Eq. 1 of Jacob et al., *Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference*, CVPR 2018 (arXiv:1712.05877). Activations have one grid a tensor, with any
zero point; weights one an output channel, with zero point 0 and as many codes below zero as above, which is what
integer kernels multiply fastest (section 2.4 there leaves out −128 for the same reason).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.generic]
_LEAST_BITS, _MOST_BITS = 2, 16
# Of the largest step of a kernel. A channel of weights that are smaller still would make its bias, in units of its
# step, run out of the 32 bits that integer kernels have for it; and all its weights are nothing beside the others.
_LEAST_STEP = 2.0**-16
# Of the 24 binary digits of a float32, so many are left to a step; see `short`.
_DIGITS = 14
# The narrowest and the number of ranges that `steps_of_least_error` tries, as shares of the largest weight.
_NARROWEST, _TRIED = 0.3, 36


@dataclass(frozen=True)
class Grid:
    """The evenly spaced real values that integer codes can stand for.

    These hold for every grid:

    * ``scale.shape == zero_point.shape``, and both broadcast against the array being coded;
    * ``scale > 0``;
    * ``low <= zero_point <= high``, so real 0.0 always has an exact code: zero padding, ReLU's cutoff and pruned
      weights stay exact.

    Attributes:
        scale: Real distance between neighbouring codes, in the unit of the data.
        zero_point: The code that stands for real 0.0.
        low: Smallest code, inclusive.
        high: Largest code, inclusive.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    low: int
    high: int

    @property
    def minimum(self) -> NDArray[np.float32]:
        """The smallest real value that has a code."""
        return ((self.low - self.zero_point) * self.scale).astype(np.float32)

    @property
    def maximum(self) -> NDArray[np.float32]:
        """The largest real value that has a code."""
        return ((self.high - self.zero_point) * self.scale).astype(np.float32)

    def encode(self, values: object) -> NDArray[np.int32]:
        """Return the nearest codes, those at the ends for what lies beyond."""
        codes = np.rint(np.asarray(values, np.float32) / self.scale) + self.zero_point
        found: NDArray[np.int32] = np.clip(codes, self.low, self.high).astype(np.int32)
        return found

    def decode(self, codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return what codes stand for."""
        return ((codes - self.zero_point) * self.scale).astype(np.float32)

    def rounded(self, values: object) -> NDArray[np.float32]:
        """Return the nearest values that have codes, which is what fake quantization computes.

        Example:
            >>> grid_for_range(np.array(0.0), np.array(51.0)).rounded([-3.0, 0.29, 0.31, 70.0]).tolist()
            [0.0, 0.20000000298023224, 0.4000000059604645, 51.0]
        """
        return self.decode(self.encode(values))


def grid_for_range(minimum: Numbers, maximum: Numbers, *, bits: int = 8) -> Grid:
    """Return the finest signed grid that covers ``[minimum, maximum]`` and 0.0, give or take half a step.

    The range is moved by as much as it takes for 0.0 to fall on a code (section 3.1 of Jacob et al., 2018).

    Args:
        minimum: Smallest real value to represent; any shape.
        maximum: Largest real value to represent; same shape as `minimum`.
        bits: Width of a code, from 2 to 16.

    Returns:
        A grid of ``2**bits`` codes; its scale and zero point have the shape of `minimum`.

    Raises:
        ValueError: If a minimum exceeds its maximum or either is no finite number, or `bits` is outside 2..16.

    Example:
        >>> grid = grid_for_range(np.array(-1.0), np.array(3.0))
        >>> round(float(grid.scale), 5), int(grid.zero_point)
        (0.01569, -64)
    """
    _check_bits(bits)
    low, high = np.asarray(minimum, np.float64), np.asarray(maximum, np.float64)
    # Asked this way round, NaN fails too.
    if not (np.all(low <= high) and np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(f"expected finite minimum <= maximum, got {minimum=}, {maximum=}")
    first, last = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    # Stretching the range to include 0.0 is what makes the zero point land on a code.
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    # A range that is 0.0 alone has no span; any positive scale codes it exactly.
    scale = np.where(high > low, (high - low) / (last - first), 1.0)
    scale = np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)
    zero_point = np.clip(np.rint(first - low / scale), first, last).astype(np.int32)
    return Grid(scale, zero_point, first, last)


def symmetric_grid(step: Numbers, *, bits: int = 8) -> Grid:
    """Return the grid of weights with this step: zero point 0, and as many codes below zero as above.

    Args:
        step: Real distance between neighbouring codes, above 0; any shape that broadcasts against the weights.
        bits: Width of a code, from 2 to 16; of its ``2**bits`` codes the lowest is left out.

    Raises:
        ValueError: If a step is not above 0, or `bits` is outside 2..16.

    Example:
        >>> symmetric_grid(np.array(0.5), bits=4).rounded([0.3, -9.0]).tolist()
        [0.5, -3.5]
    """
    scale = np.asarray(step, np.float32)
    if not np.all(scale > 0):
        raise ValueError(f"expected steps above 0, got {step}")
    most = largest_code(bits)
    return Grid(scale, np.zeros(scale.shape, np.int32), -most, most)


def largest_code(bits: int) -> int:
    """Return the largest code of a symmetric grid: 127 for 8 bits, 7 for 4.

    Raises:
        ValueError: If `bits` is outside 2..16.
    """
    _check_bits(bits)
    return int(2 ** (bits - 1)) - 1


def steps_of_weights(
    weights: Numbers, channel_axes: Sequence[int], *, bits: int = 8
) -> NDArray[np.float32]:
    """Return the step for each channel of a kernel at which its largest weight has the largest code.

    Args:
        weights: A kernel.
        channel_axes: The axes that number the output channels, negative ones too; empty for one step for all.
        bits: Width of a code, from 2 to 16.

    Returns:
        Steps above 0, in a shape that broadcasts against the kernel: 1 along all axes but those of channels.

    Example:
        >>> steps_of_weights(np.array([[1.27, 0.0], [-2.54, 0.0]]), [1]).round(4).tolist()
        [[0.019999999552965164, 0.0]]
    """
    largest = np.abs(np.asarray(weights, np.float64)).max(
        axis=_others(np.ndim(weights), channel_axes), keepdims=True
    )
    return bounded(largest / largest_code(bits))


def steps_of_least_error(
    weights: Numbers, channel_axes: Sequence[int], *, bits: int
) -> NDArray[np.float32]:
    """Return the step for each channel of a kernel at which rounding it costs the least squared error.

    With few codes it pays to cut off the largest weights and tell the others apart better. Ranges from 0.3 of the
    largest weight on are tried.

    Args:
        weights: A kernel.
        channel_axes: As in `steps_of_weights`.
        bits: Width of a code, from 2 to 16.

    Returns:
        As `steps_of_weights`.
    """
    widest = steps_of_weights(weights, channel_axes, bits=bits)
    summed = _others(np.ndim(weights), channel_axes)
    best, least = widest, np.full(widest.shape, np.inf)
    exact = np.asarray(weights, np.float64)
    for share in np.linspace(1.0, _NARROWEST, _TRIED):
        steps = (widest * share).astype(np.float32)
        rounded = symmetric_grid(steps, bits=bits).rounded(weights)
        error = np.square(rounded - exact).sum(axis=summed, keepdims=True)
        best, least = np.where(error < least, steps, best), np.minimum(error, least)
    return best.astype(np.float32)


def bounded(steps: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the steps of a kernel's channels, those raised that are nothing beside the largest."""
    largest = float(steps.max(initial=0.0))
    # A kernel of zeros alone is coded exactly by any step.
    found: NDArray[np.float32] = np.maximum(
        steps, largest * _LEAST_STEP if largest else 1.0
    ).astype(np.float32)
    return found


def short(steps: Numbers) -> NDArray[np.float32]:
    """Return steps to the nearest number of 14 binary digits, which is off by 2**-15 of it at most.

    There is a step for each channel, and float32's last ten digits are noise that no archive makes smaller. A sum that
    fills its range of 255 steps is off by less than a hundredth of one.

    Example:
        >>> float(short(np.array(1 / 3)))
        0.333343505859375
    """
    digits, exponents = np.frexp(np.asarray(steps, np.float64))
    found: NDArray[np.float32] = np.ldexp(
        np.rint(np.ldexp(digits, _DIGITS)), exponents - _DIGITS
    ).astype(np.float32)
    return found


def _others(rank: int, axes: Sequence[int]) -> tuple[int, ...]:
    chosen = {axis % rank for axis in axes}
    return tuple(axis for axis in range(rank) if axis not in chosen)


def _check_bits(bits: int) -> None:
    if not _LEAST_BITS <= bits <= _MOST_BITS:
        raise ValueError(f"bits must lie in {_LEAST_BITS}..{_MOST_BITS}, not {bits}")
