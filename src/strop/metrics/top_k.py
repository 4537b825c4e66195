"""Top-k accuracy: the share of samples whose class is among the k highest scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from strop.core.contracts import Metric
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
        """Return the share."""
        return float(np.mean(self.per_sample(output, target)))

    def per_sample(self, output: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
        """Return 1.0 for each sample whose class is among the k highest, else 0.0."""
        wanted = np.argmax(target, -1) if target.shape == output.shape else target.reshape(-1)
        best = np.argsort(-output, axis=-1, kind="stable")[:, : self.k]
        return np.asarray((best == wanted[:, None]).any(-1), np.float64)
