"""The mean absolute error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from strop.core.contracts import Metric


@final
@dataclass(frozen=True)
class MeanAbsoluteError(Metric):
    """Mean of |output − target|, in the target's unit."""

    higher_is_better = False
    is_bounded = False
    title = "MAE"

    @classmethod
    def fits(cls, output: NDArray[Any], target: NDArray[Any]) -> bool:
        """Say whether targets are numbers of the outputs' shape."""
        return (
            output.dtype.kind == "f" and target.size == output.size and target.dtype.kind in "fiu"
        )

    def value(self, output: NDArray[Any], target: NDArray[Any]) -> float:
        """Return the error."""
        return float(np.mean(self.per_sample(output, target)))

    def per_sample(self, output: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
        """Return each sample's mean absolute error."""
        gaps = np.abs(output.astype(np.float64) - target.reshape(output.shape))
        return np.asarray(gaps.reshape(len(gaps), -1).mean(-1), np.float64)
