"""Finalists in pairs: measured round by round in turn, so that what disturbs the machine falls on all alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from strop.core.evaluation import Measurement
from strop.core.model import Model
from strop.core.recipe import Recipe
from strop.engine.context import Bench
from strop.engine.executors.local import LocalExecutor
from strop.engine.worker import Worker
from strop.numerics.statistics import ratio_interval, simultaneous_confidence, with_spread

_OPEN_SECONDS = 300.0
_ROUND_SECONDS = 120.0
_TASKS = "strop.engine.tasks"

PROCESS_SPREAD = 0.01
"""How much two processes that opened the same artifact differ for good, as the standard deviation of the log ratio.

Where memory happens to lie decides it, once for each process, so that no number of rounds averages it out. Measured by
`benchmarks/same_against_same.py`: without it a fifth of the pairs of equals had a winner.
"""


@dataclass(frozen=True)
class Pair:
    """A subject against the reference, measured in the same rounds.

    Attributes:
        name: The subject.
        ratio: Its time over the reference's, with an interval that holds for all subjects at once.
        rounds: How many rounds stand behind it.
    """

    name: str
    ratio: Measurement
    rounds: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` takes back."""
        return {"name": self.name, "ratio": self.ratio.to_json(), "rounds": self.rounds}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Pair:
        """Return what `to_json` was called on."""
        return cls(data["name"], Measurement.from_json(data["ratio"]), data["rounds"])


def compare(
    executor: LocalExecutor,
    subjects: Mapping[str, tuple[Model, Recipe]],
    reference: str,
    bench: Bench,
    batch: int,
    *,
    rounds: int,
    seconds: float,
    confidence: float = 0.95,
) -> list[Pair]:
    """Return each subject but the reference against it.

    Every subject is opened in a process of its own and waits there, asleep, for its turn; the order within
    a round changes from round to round.

    Args:
        executor: Its other workers are closed first, so that none disturbs.
        subjects: Model and recipe (for runtime and settings) by name.
        reference: The name of the one that the others are held against.
        bench: Gives the inputs.
        batch: Batch size.
        rounds: How many.
        seconds: Of each subject in each round.
        confidence: At which all intervals hold at once.

    Raises:
        TrialError: If a subject can't be opened or fails.
    """
    executor.close()
    workers: dict[str, Worker] = {}
    try:
        for name, (model, recipe) in subjects.items():
            workers[name] = Worker({"TF_CPP_MIN_LOG_LEVEL": "3"})
            workers[name].call(
                f"{_TASKS}:open_subject", name, model, recipe.runtime, dict(recipe.settings), bench, batch,
                timeout_seconds=_OPEN_SECONDS,
            )  # fmt: skip
        times = _rounds(workers, rounds, seconds, bench.seed)
    finally:
        for worker in workers.values():
            worker.close()
    level = simultaneous_confidence(confidence, len(subjects) - 1)
    pairs = []
    for name, figures in times.items():
        if name != reference:
            found = with_spread(
                ratio_interval(figures, times[reference], level), PROCESS_SPREAD, level
            )
            ratio = Measurement(found.value, "ratio", found.low, found.high, rounds, confidence)
            pairs.append(Pair(name, ratio, rounds))
    return pairs


def _rounds(
    workers: Mapping[str, Worker], rounds: int, seconds: float, seed: int
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in workers}
    random = np.random.default_rng(seed)
    names = list(workers)
    for _ in range(rounds):
        for position in random.permutation(len(names)):
            name = names[position]
            times[name].append(
                workers[name].call(
                    f"{_TASKS}:time_round",
                    name,
                    seconds,
                    timeout_seconds=_ROUND_SECONDS,
                )
            )
    return times
