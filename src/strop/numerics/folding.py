"""Maps of channels, and how they go into the weights of a linear layer before or behind them.

With ``y = W ∗ x``, a scale and an offset of each output channel go into weights and bias, ``s·(W ∗ x) + o =
(s·W) ∗ x + o``, and those of each input channel too, ``W ∗ (s·x + o) = (W·s) ∗ x + W ∗ o``, where no padding stands
between. Batch normalization that is done with training is such a map: Eqs. 11 to 13 of Krishnamoorthi, *Quantizing deep
convolutional networks for efficient inference: A whitepaper*, 2018 (arXiv:1806.08342).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Affine:
    """A map of channels, ``x -> scale * x + offset``.

    These hold for all: both are vectors in double precision, of one length or of length 1, which stands for any.

    Attributes:
        scale: One factor a channel.
        offset: One summand a channel.
    """

    scale: Floats
    offset: Floats

    @classmethod
    def of(cls, scale: object = 1.0, offset: object = 0.0) -> Affine:
        """Return the map with these numbers, a vector or one for all channels."""
        return cls(*(np.asarray(value, np.float64).reshape(-1) for value in (scale, offset)))

    def then(self, after: Affine) -> Affine:
        """Return the map that does this one first and `after` behind it.

        Example:
            >>> twice, one_more = Affine.of(2.0), Affine.of(offset=1.0)
            >>> twice.then(one_more).apply(3.0), one_more.then(twice).apply(3.0)
            (array([7.]), array([8.]))
        """
        return Affine(self.scale * after.scale, self.offset * after.scale + after.offset)

    def apply(self, channels: object) -> Floats:
        """Return the map of numbers whose last axis is the channels."""
        found: Floats = np.asarray(channels, np.float64) * self.scale + self.offset
        return found

    @property
    def is_finite(self) -> bool:
        """Whether all its numbers are finite."""
        return bool(np.isfinite(self.scale).all() and np.isfinite(self.offset).all())

    @property
    def shifts(self) -> bool:
        """Whether it adds something to any channel."""
        return bool(np.any(self.offset != 0))


def batch_normalization(
    mean: object, variance: object, gamma: object, beta: object, epsilon: float
) -> Affine:
    """Return batch normalization in use, ``γ·(x − μ)/√(σ² + ε) + β``, as a map of channels.

    Example:
        >>> batch_normalization(mean=2.0, variance=8.0, gamma=3.0, beta=1.0, epsilon=1.0).apply([2.0, 5.0])
        array([1., 4.])
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.asarray(gamma, np.float64) / np.sqrt(np.asarray(variance, np.float64) + epsilon)
        return Affine.of(step, np.asarray(beta, np.float64) - np.asarray(mean, np.float64) * step)


def scale_outputs(kernel: NDArray[np.generic], scale: Floats, axes: Sequence[int]) -> Floats:
    """Return a kernel with each output channel scaled.

    Args:
        kernel: Weights.
        scale: A factor for each output channel; length 1 for one for all.
        axes: The axes that number the output channels, the slowest first (two for a depthwise kernel).
    """
    return np.asarray(kernel, np.float64) * _along(scale, kernel.shape, axes)


def scale_inputs(
    kernel: NDArray[np.generic], scale: Floats, axis: int, *, output_axis: int, groups: int = 1
) -> Floats:
    """Return a kernel with each input channel scaled.

    Args:
        kernel: Weights.
        scale: A factor for each input channel of all groups; length 1 for one for all.
        axis: The axis that numbers the input channels of a group.
        output_axis: The axis that numbers the output channels of all groups, group by group.
        groups: How many groups there are.
    """
    return np.asarray(kernel, np.float64) * _by_group(
        scale, kernel.shape, axis, output_axis, groups
    )


def answer_to_offset(
    kernel: NDArray[np.generic],
    offset: Floats,
    axis: int,
    *,
    output_axes: Sequence[int],
    groups: int = 1,
) -> Floats:
    """Return what a layer answers, in each output channel, to inputs that are `offset` everywhere.

    Args:
        kernel: Weights.
        offset: A number for each input channel of all groups; length 1 for one for all.
        axis: The axis that numbers the input channels of a group.
        output_axes: The axes that number the output channels, the slowest first; `axis` may be among them.
        groups: How many groups there are.
    """
    answers = np.asarray(kernel, np.float64) * _by_group(
        offset, kernel.shape, axis, output_axes[-1], groups
    )
    summed = tuple(n for n in range(kernel.ndim) if n not in output_axes)
    found: Floats = answers.sum(axis=summed).reshape(-1)
    return found


def _along(values: Floats, shape: Sequence[int], axes: Sequence[int]) -> Floats:
    """Return channels' values in a shape that broadcasts against a kernel's."""
    sizes = [1] * len(shape)
    if len(values) > 1:
        for axis in axes:
            sizes[axis] = shape[axis]
    return values.reshape(sizes)


def _by_group(
    values: Floats, shape: Sequence[int], axis: int, output_axis: int, groups: int
) -> Floats:
    """Return input channels' values in a shape that broadcasts against a kernel's whose outputs lie group by group."""
    if groups == 1 or len(values) == 1:
        return _along(values, shape, (axis,))
    each = shape[output_axis] // groups
    by_output = np.repeat(values.reshape(groups, shape[axis]), each, axis=0)
    sizes = [1] * len(shape)
    sizes[axis], sizes[output_axis] = shape[axis], shape[output_axis]
    if axis < output_axis:
        by_output = by_output.T
    assert math.prod(sizes) == by_output.size  # noqa: S101 - groups share the outputs out evenly
    return by_output.reshape(sizes)
