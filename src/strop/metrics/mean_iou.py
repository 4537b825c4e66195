"""Mean intersection over union of dense class predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from strop.core.contracts import Metric
from strop.core.errors import MetricError


@final
@dataclass(frozen=True)
class MeanIoU(Metric):
    """Mean over classes of |right| / |predicted or true|; classes that appear in neither don't count.

    Outputs are class scores, samples first, classes last, with at least one dimension of places between;
    targets the classes of those places. Places labelled with none of the classes (255, −1: void) are left out.
    """

    title = "mean IoU"

    @classmethod
    def fits(cls, output: NDArray[Any], target: NDArray[Any]) -> bool:
        """Say whether there is a class for each place."""
        places = output.shape[:-1]
        return (
            output.ndim >= 3
            and (output.dtype.kind == "f" or (output.dtype.kind in "iu" and output.shape[-1] > 1))
            and target.dtype.kind in "iu"
            and target.shape in {places, (*places, 1)}
        )

    def value(self, output: NDArray[Any], target: NDArray[Any]) -> float:
        """Return the mean.

        Raises:
            MetricError: If every place is void.
        """
        return self.value_of(self.statistics(output, target).sum(0))

    def statistics(self, output: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
        """Return each sample's |right| and then its |predicted or true|, for each class that appears at all.

        Raises:
            MetricError: If every place is void.
        """
        classes = max(output.shape[-1], 2)
        guessed = np.argmax(output, -1) if output.shape[-1] > 1 else output[..., 0] > 0.5
        guessed = guessed.reshape(len(output), -1).astype(np.int64)
        wanted = target.reshape(len(output), -1).astype(np.int64)
        is_labelled = (wanted >= 0) & (wanted < classes)
        if not is_labelled.any():
            raise MetricError(
                f"mean IoU: no place is labelled with one of the {classes} classes that the output has"
            )
        sample = np.nonzero(is_labelled)[0]
        wanted, guessed = wanted[is_labelled], guessed[is_labelled]
        # Of a vocabulary few words appear, and only those get a column.
        appears = np.zeros(classes, bool)
        appears[wanted] = appears[guessed] = True
        column = np.cumsum(appears) - 1
        shape = (len(output), int(appears.sum()))
        is_right = wanted == guessed
        right = _counted(sample[is_right], column[wanted[is_right]], shape)
        union = _counted(sample, column[wanted], shape) + _counted(sample, column[guessed], shape)
        return np.concatenate([right, union - right], axis=1)

    def value_of(self, totals: NDArray[np.float64]) -> float:
        """Return the mean over the classes that these samples have.

        Raises:
            MetricError: If they have none, every place of theirs being void.
        """
        right, union = np.split(totals, 2)
        if not union.any():
            raise MetricError("mean IoU: every place is void")
        return float(np.mean(right[union > 0] / union[union > 0]))


def _counted(
    rows: NDArray[np.intp], columns: NDArray[np.intp], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Return how often each (row, column) occurs."""
    counts = np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1])
    return counts.reshape(shape).astype(np.float64)
