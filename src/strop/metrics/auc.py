"""The area under the receiver operating characteristic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from numpy.typing import NDArray

from strop.core.contracts import Metric
from strop.core.errors import MetricError


@final
@dataclass(frozen=True)
class AUC(Metric):
    """Probability that a random positive scores above a random negative; only ever used when asked for.

    Computed from ranks (Mann and Whitney, 1947), ties counting half. With two columns the second is the
    positive class.
    """

    title = "AUC"

    @classmethod
    def fits(cls, output: NDArray[Any], target: NDArray[Any]) -> bool:
        """Say no: accuracy is what is picked, and AUC by those who want it."""
        return False

    def value(self, output: NDArray[Any], target: NDArray[Any]) -> float:
        """Return the area.

        Raises:
            MetricError: If the outputs aren't one score (or two) a sample, or one class is missing.
        """
        from scipy.stats import rankdata

        if output.ndim > 1 and output.shape[-1] > 2:
            raise MetricError(f"AUC is for two classes; the output has shape {output.shape}")
        scores = output if output.ndim == 1 else output[:, -1]
        positive = (target if target.ndim == 1 else target[:, -1]).reshape(-1) > 0
        ones, zeros = int(positive.sum()), int((~positive).sum())
        if not ones or not zeros:
            raise MetricError("AUC needs samples of both classes; these are all of one")
        ranks = rankdata(scores)
        return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))
