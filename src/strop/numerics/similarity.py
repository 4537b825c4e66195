"""How much two arrays of answers differ.

A NaN differs from everything, itself too, and an infinity from everything but the same infinity (masks leave
those in logits on purpose): such differences are infinite, and so is every figure made of them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def max_abs_difference(reference: NDArray[Any], candidate: NDArray[Any]) -> float:
    """Return the largest absolute difference; 0 for empty arrays.

    Example:
        >>> max_abs_difference(np.array([1.0, 2.0]), np.array([1.5, 2.0]))
        0.5
    """
    return float(np.max(_differences(reference, candidate), initial=0.0))


def mean_abs_difference(reference: NDArray[Any], candidate: NDArray[Any]) -> float:
    """Return the mean absolute difference; 0 for empty arrays."""
    found = _differences(reference, candidate)
    return float(np.mean(found)) if found.size else 0.0


def relative_error(reference: NDArray[Any], candidate: NDArray[Any]) -> float:
    """Return the root of the noise's energy over the signal's, ``|r − c| / |r|``.

    It is 0 for equal arrays, and infinite where the reference is all zero and the candidate is not. Entries
    where both are the same infinity count neither as signal nor as noise.

    Example:
        >>> relative_error(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
        0.1
    """
    noise = float(np.linalg.norm(_differences(reference, candidate).ravel()))
    values = np.asarray(reference, np.float64)
    signal = float(np.linalg.norm(values[np.isfinite(values)]))
    if noise == 0.0:
        return 0.0
    return noise / signal if signal > 0 else math.inf


def sqnr_db(reference: NDArray[Any], candidate: NDArray[Any]) -> float:
    """Return the signal-to-quantization-noise ratio in decibels.

    It is infinite for equal arrays, and minus infinity where `relative_error` is infinite.

    Example:
        >>> round(sqnr_db(np.array([3.0, 4.0]), np.array([3.0, 4.5])), 3)
        20.0
    """
    error = relative_error(reference, candidate)
    if error == 0.0:
        return math.inf
    return -math.inf if math.isinf(error) else -20.0 * math.log10(error)


def top1_agreement(reference: NDArray[Any], candidate: NDArray[Any]) -> float:
    """Return the share of rows whose largest entry is at the same place; 1 where there are no rows.

    Of equal largest entries the first counts. A row with a NaN agrees with none.

    Args:
        reference: Scores, samples first, classes last; at least two classes.
        candidate: Scores of the same shape.

    Example:
        >>> top1_agreement(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.6, 0.4], [0.5, 0.4]]))
        0.5
    """
    same = np.argmax(reference, axis=-1) == np.argmax(candidate, axis=-1)
    same &= ~(np.isnan(reference).any(axis=-1) | np.isnan(candidate).any(axis=-1))
    return float(np.mean(same)) if same.size else 1.0


def _differences(reference: NDArray[Any], candidate: NDArray[Any]) -> NDArray[np.float64]:
    one, other = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        found = np.where(one == other, 0.0, np.abs(one - other))
    return np.where(np.isnan(found), np.inf, found)
