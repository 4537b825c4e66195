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
        return float(
            np.sqrt(np.mean((output.astype(np.float64) - target.reshape(output.shape)) ** 2))
        )
