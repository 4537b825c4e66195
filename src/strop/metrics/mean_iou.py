"""Mean intersection over union of dense class predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from strop.core.contracts import Metric


@final
@dataclass(frozen=True)
class MeanIoU(Metric):
    """Mean over classes of |right| / |predicted or true|; classes that appear in neither don't count.

    Outputs are class scores, samples first, classes last, with at least one dimension of places between;
    targets the classes of those places.
    """

    title = "mean IoU"

    @classmethod
    def fits(cls, output: NDArray[Any], target: NDArray[Any]) -> bool:
        """Say whether there is a class for each place."""
        places = output.shape[:-1]
        return (
            output.ndim >= 3
            and output.dtype.kind == "f"
            and target.dtype.kind in "iu"
            and target.shape in {places, (*places, 1)}
        )

    def value(self, output: NDArray[Any], target: NDArray[Any]) -> float:
        """Return the mean."""
        classes = max(output.shape[-1], 2)
        guessed = np.argmax(output, -1) if output.shape[-1] > 1 else output[..., 0] > 0.5
        pairs = target.reshape(-1).astype(np.int64) * classes + guessed.reshape(-1)
        confusion = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
        right = np.diag(confusion).astype(np.float64)
        union = confusion.sum(0) + confusion.sum(1) - right
        return float(np.mean(right[union > 0] / union[union > 0]))
