"""Separable convolutions: each input channel filtered by itself, and the channels mixed after.

A convolution with the kernel ``W[p, c, f]`` (places p, input channels c, output channels f) is separable where the
matrix ``W[:, c, :]`` of each input channel has rank one: then ``W[p, c, f] = d[p, c] · m[c, f]``, a depthwise kernel d
and a pointwise one m.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def separated(kernel: NDArray[Any]) -> tuple[Floats, Floats]:
    r"""Return the separable convolution that is nearest to a convolution, as a depthwise and a pointwise kernel.

    It is the nearest by the sum of squared differences, for each input channel by itself (Eckart and Young, *The
    approximation of one matrix by another of lower rank*, 1936).

    Args:
        kernel: Of shape (\*places, input channels, output channels).

    Returns:
        The depthwise kernel, of shape (\*places, input channels, 1), and the pointwise one, of shape (1, …, 1, input
        channels, output channels) with as many axes as `kernel`.

    Example:
        >>> depthwise, pointwise = separated(np.ones((3, 3, 2, 5)))
        >>> depthwise.shape, pointwise.shape, bool(np.allclose(depthwise * pointwise, 1.0))
        ((3, 3, 2, 1), (1, 1, 2, 5), True)
    """
    *places, inputs, outputs = kernel.shape
    # C input channels, P places, F output channels
    matrices = np.moveaxis(kernel.reshape(-1, inputs, outputs).astype(np.float64), 1, 0)
    left, values, right = np.linalg.svd(matrices, full_matrices=False)
    root = np.sqrt(values[:, :1])  # half of the size to either, so that both learn alike
    depthwise, pointwise = left[:, :, 0] * root, right[:, 0, :] * root
    ones = (1,) * len(places)
    return (
        depthwise.T.reshape(*places, inputs, 1),
        pointwise.reshape(*ones, inputs, outputs),
    )
