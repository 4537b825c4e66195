"""The root of the mean squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from strop.core.contracts import Metric


@final
@dataclass(frozen=True)
class RootMeanSquaredError(Metric):
    """Root of the mean of (output − target)²; only ever used when asked for."""

    higher_is_better = False
    is_bounded = False
    title = "RMSE"

    @classmethod
    def fits(cls, output: NDArray[Any], target: NDArray[Any]) -> bool:
        """Say no: the mean absolute error is what is picked."""
        return False

    def value(self, output: NDArray[Any], target: NDArray[Any]) -> float:
        """Return the error."""
        return self.value_of(self.statistics(output, target).sum(0))

    def statistics(self, output: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
        """Return each sample's mean squared error, and 1 to count it."""
        gaps = (output.astype(np.float64) - target.reshape(output.shape)).reshape(len(output), -1)
        return np.stack([np.square(gaps).mean(-1), np.ones(len(gaps))], axis=-1)

    def value_of(self, totals: NDArray[np.float64]) -> float:
        """Return the root of the mean over samples."""
        return float(np.sqrt(totals[0] / totals[1]))
