"""Top-k accuracy: the share of samples whose class is among the k highest scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from strop.core.contracts import Metric
from strop.core.errors import MetricError, message
from strop.core.parameters import parameter


@final
@dataclass(frozen=True)
class TopK(Metric):
    """Share of samples whose class is among the k highest scores; only ever used when asked for."""

    title = "top-k accuracy"

    k: int = parameter(5, low=1, doc="how many guesses count")

    @classmethod
    def fits(cls, output: NDArray[Any], target: NDArray[Any]) -> bool:
        """Say no: accuracy is what is picked, and top-k by those who want it."""
        return False

    def value(self, output: NDArray[Any], target: NDArray[Any]) -> float:
        """Return the share.

        Raises:
            MetricError: If the outputs aren't rows of scores, or not more of them than `k`.
        """
        return float(np.mean(self.per_sample(output, target)))

    def per_sample(self, output: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
        """Return 1.0 for each sample whose class is among the k highest, else 0.0."""
        if output.ndim != 2:
            raise MetricError(
                f"top-{self.k} accuracy is for rows of class scores; the output has shape {output.shape}"
            )
        classes = output.shape[1]
        if self.k >= classes:
            raise MetricError(
                message(
                    f"top-{self.k} accuracy over {classes} classes is 1 whatever the answers are.",
                    "k must be below the number of classes.",
                    next_step=f"--metric 'top_k(k={max(classes - 1, 1)})'",
                )
            )
        wanted = np.argmax(target, -1) if target.shape == output.shape else target.reshape(-1)
        wanted = wanted.astype(np.int64)[:, None]
        own = np.take_along_axis(output, np.clip(wanted, 0, classes - 1), axis=-1)
        # Counted and not sorted: negated to sort downwards, codes of 8 bits would wrap round.
        ahead = (output > own) | ((output == own) & (np.arange(classes) < wanted))
        is_known = (wanted >= 0) & (wanted < classes)
        return np.asarray(is_known[:, 0] & (ahead.sum(-1) < self.k), np.float64)
