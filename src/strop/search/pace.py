"""How much work each effort spends."""

from __future__ import annotations

from dataclasses import dataclass

from strop.core.contracts import Effort


@dataclass(frozen=True)
class Pace:
    """How much work an effort spends.

    Attributes:
        timing_seconds: Timing of one trial.
        judged: Most samples to judge a trial on before the final.
        judging_seconds: About the longest to judge one.
        tuned: How many models have all their runtime's settings tried.
        finalists: How many are measured in pairs.
        rounds: Of the pairs.
        round_seconds: Of each subject in a round.
        near: How many times behind the best a time is no longer worth telling exactly.
        hopeless: How many times behind the best a form may be in float and still get its techniques tried.
        far: How many times behind the best an engine may be in its first settings and still get its others tried.
        trusted: Of what settings did with one model of an engine, the share that another is expected to see where calls
            are long; 0 where all are tried.
        chains: How many chains of techniques that train are tried.
        enough_seconds: Of the pairs, after which there are no more rounds than it takes to tell them.
    """

    timing_seconds: float
    judged: int
    judging_seconds: float
    tuned: int
    finalists: int
    rounds: int
    round_seconds: float
    near: float
    hopeless: float
    far: float
    trusted: float
    chains: int
    enough_seconds: float


PACES = {
    Effort.QUICK: Pace(0.2, 500, 3.0, 2, 2, 14, 0.06, 2.0, 6.0, 3.0, 0.95, 0, 30.0),
    Effort.STANDARD: Pace(0.4, 1000, 8.0, 4, 4, 24, 0.1, 2.0, 12.0, 3.0, 0.95, 0, 60.0),
    Effort.THOROUGH: Pace(1.0, 5000, 30.0, 8, 6, 40, 0.2, 1e9, 1e9, 1e9, 0.0, 16, 600.0),
}
