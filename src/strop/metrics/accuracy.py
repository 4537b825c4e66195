"""Accuracy: the share of samples whose class is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from strop.core.contracts import Metric


@final
@dataclass(frozen=True)
class Accuracy(Metric):
    """Share of right classes; targets are integers or one-hot, outputs class scores or one probability."""

    title = "accuracy"

    @classmethod
    def fits(cls, output: NDArray[Any], target: NDArray[Any]) -> bool:
        """Say whether targets are classes and outputs their scores."""
        if output.ndim != 2 or not _are_scores(output) or target.dtype.kind not in "biuf":
            return False
        if _is_one_hot(output, target):
            return True
        if target.shape not in {output.shape[:1], (len(output), 1)} or not _whole(target):
            return False
        classes = max(output.shape[1], 2)
        return bool(target.min() >= 0 and target.max() < classes)

    def value(self, output: NDArray[Any], target: NDArray[Any]) -> float:
        """Return the share of right classes."""
        return float(np.mean(self.per_sample(output, target)))

    def per_sample(self, output: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
        """Return 1.0 for each right sample, else 0.0."""
        wanted = np.argmax(target, -1) if _is_one_hot(output, target) else target.reshape(-1)
        if output.ndim == 1 or output.shape[1] == 1:
            scores = output.reshape(-1)
            # A lone score is a probability where it stays in [0, 1], else a logit.
            threshold = 0.5 if scores.min() >= 0 and scores.max() <= 1 else 0.0
            return np.asarray((scores > threshold) == (wanted > 0), np.float64)
        return np.asarray(np.argmax(output, -1) == wanted, np.float64)


def _are_scores(output: NDArray[Any]) -> bool:
    # Quantized files give codes, whose order is that of the scores; where one stands alone, nobody knows which
    # code stands for one half.
    return output.dtype.kind == "f" or (output.dtype.kind in "iu" and output.shape[1] > 1)


def _is_one_hot(output: NDArray[Any], target: NDArray[Any]) -> bool:
    return (
        target.ndim == 2
        and target.shape == output.shape
        and target.shape[1] > 1
        and bool(np.all(np.sum(target == 1, -1) == 1) and np.all(np.sum(target != 0, -1) == 1))
    )


def _whole(target: NDArray[Any]) -> bool:
    return target.dtype.kind in "iub" or bool(np.all(target == np.rint(target)))
