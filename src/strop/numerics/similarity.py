"""How much two arrays of answers differ."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def max_abs_difference(reference: NDArray[Any], candidate: NDArray[Any]) -> float:
    """Return the largest absolute difference; infinite where the candidate is not finite."""
    return float(np.max(_differences(reference, candidate), initial=0.0))


def mean_abs_difference(reference: NDArray[Any], candidate: NDArray[Any]) -> float:
    """Return the mean absolute difference; infinite where the candidate is not finite."""
    found = _differences(reference, candidate)
    return float(np.mean(found)) if found.size else 0.0


def relative_error(reference: NDArray[Any], candidate: NDArray[Any]) -> float:
    """Return the root of the noise's energy over the signal's, ``|r − c| / |r|``.

    It is 0 for equal arrays, and infinite where the reference is all zero and the candidate is not, or
    where the candidate is not finite.

    Example:
        >>> relative_error(np.array([3.0, 4.0]), np.array([3.0, 4.5]))
        0.1
    """
    noise = float(np.linalg.norm(_differences(reference, candidate).ravel()))
    signal = float(np.linalg.norm(np.asarray(reference, np.float64).ravel()))
    if noise == 0.0:
        return 0.0
    return noise / signal if signal > 0 else math.inf


def sqnr_db(reference: NDArray[Any], candidate: NDArray[Any]) -> float:
    """Return the signal-to-quantization-noise ratio in decibels; infinite for equal arrays.

    Example:
        >>> round(sqnr_db(np.array([3.0, 4.0]), np.array([3.0, 4.5])), 3)
        20.0
    """
    error = relative_error(reference, candidate)
    if error == 0.0:
        return math.inf
    return -math.inf if math.isinf(error) else -20.0 * math.log10(error)


def top1_agreement(reference: NDArray[Any], candidate: NDArray[Any]) -> float:
    """Return the share of rows whose largest entry is at the same place.

    Args:
        reference: Scores, samples first, classes last; at least two classes.
        candidate: Scores of the same shape.
    """
    same = np.argmax(reference, axis=-1) == np.argmax(candidate, axis=-1)
    return float(np.mean(same)) if same.size else 1.0


def _differences(reference: NDArray[Any], candidate: NDArray[Any]) -> NDArray[np.float64]:
    found = np.abs(np.asarray(reference, np.float64) - np.asarray(candidate, np.float64))
    return np.where(np.isnan(found), np.inf, found)
