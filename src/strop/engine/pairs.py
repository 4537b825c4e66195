"""Finalists in pairs: measured round by round in turn, so that what disturbs the machine falls on all alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from strop.core.errors import StropError, SubjectError
from strop.core.evaluation import Measurement
from strop.core.model import Model
from strop.core.recipe import Recipe
from strop.engine.context import Bench
from strop.engine.executors.local import LocalExecutor
from strop.engine.running import gist
from strop.engine.worker import QUIET_SECONDS, Worker
from strop.numerics.statistics import (
    median_interval,
    ratio_interval,
    simultaneous_confidence,
    with_spread,
)

_OPEN_SECONDS = 300.0
_ROUND_SECONDS = 120.0
_TASKS = "strop.engine.tasks"
_MAYBE = ("to_first", "latency", "reference_latency")

LEAST_ROUNDS = 12
"""Fewer rounds tell resembling ones from independent ones too badly."""

PROCESS_SPREAD = 0.01
"""How much two processes that opened the same artifact differ for good, as the standard deviation of the log ratio.

Where memory happens to lie decides it, once for each process, so that no number of rounds averages it out.
`benchmarks/same_against_same.py` counts how often equals are told apart with it.
"""


@dataclass(frozen=True)
class Pair:
    """A subject against the reference, measured in the same rounds.

    Attributes:
        name: The subject.
        ratio: Its figure over the reference's, with an interval that holds for all subjects at once.
        rounds: How many rounds stand behind it.
        to_first: Its figure over that of the subject with the smallest ratio; None for that one itself.
        latency: Its milliseconds a call, the median of the rounds; None where it was not times that were compared.
        reference_latency: The reference's.
    """

    name: str
    ratio: Measurement
    rounds: int = 0
    to_first: Measurement | None = None
    latency: Measurement | None = None
    reference_latency: Measurement | None = None

    @property
    def is_told_apart(self) -> bool:
        """Whether the first was proved better than this one."""
        return self.to_first is not None and self.to_first.low > 1

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` takes back."""
        maybe = {name: getattr(self, name) for name in _MAYBE}
        return {
            "name": self.name,
            "ratio": self.ratio.to_json(),
            "rounds": self.rounds,
            **{name: found and found.to_json() for name, found in maybe.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Pair:
        """Return what `to_json` was called on."""
        maybe = {name: data.get(name) for name in _MAYBE}
        return cls(
            data["name"],
            Measurement.from_json(data["ratio"]),
            data["rounds"],
            **{name: found and Measurement.from_json(found) for name, found in maybe.items()},
        )


@dataclass(frozen=True)
class Timing:
    """How fast a subject was.

    Attributes:
        name: The subject.
        latency: Milliseconds a call, the median of the rounds.
        pair: It against the first; None for the first itself.
    """

    name: str
    latency: Measurement
    pair: Pair | None


def compare(
    executor: LocalExecutor,
    subjects: Mapping[str, tuple[Model, Recipe]],
    reference: str,
    bench: Bench,
    batch: int,
    *,
    rounds: int,
    seconds: float,
    enough_seconds: float = math.inf,
    confidence: float = 0.95,
) -> list[Pair]:
    """Return each subject but the reference against it; see `times_in_turn`.

    Args:
        executor: Starts their processes.
        subjects: Model and recipe (for runtime and settings) by name.
        reference: The name of the one that the others are held against.
        bench: Gives the inputs.
        batch: Batch size.
        rounds: How many.
        seconds: Of each subject in each round.
        enough_seconds: See `in_turn`.
        confidence: At which all intervals hold at once.

    Raises:
        SubjectError: If a subject can't be opened or fails, naming it.
    """
    figures = times_in_turn(
        executor, subjects, bench, batch,
        rounds=rounds, seconds=seconds, enough_seconds=enough_seconds,
    )  # fmt: skip
    return [
        replace(
            pair,
            latency=_latency(figures[pair.name]),
            reference_latency=_latency(figures[reference]),
        )
        for pair in paired(figures, reference, spread=PROCESS_SPREAD, confidence=confidence)
    ]


def times_in_turn(
    executor: LocalExecutor,
    subjects: Mapping[str, tuple[Model, Recipe]],
    bench: Bench,
    batch: int,
    *,
    rounds: int,
    seconds: float,
    enough_seconds: float = math.inf,
) -> dict[str, list[float]]:
    """Return each subject's seconds a call, the median of each round.

    Every subject is opened in a process of its own and waits there, asleep, for its turn; the order within
    a round changes from round to round.

    Args:
        executor: Its other workers are closed first, so that none disturbs.
        subjects: Model and recipe (for runtime and settings) by name.
        bench: Gives the inputs.
        batch: Batch size.
        rounds: How many.
        seconds: Of each subject in each round, one call at least.
        enough_seconds: See `in_turn`.

    Raises:
        SubjectError: If a subject can't be opened or fails, naming it.
    """
    executor.close()
    workers: dict[str, Worker] = {}
    try:
        for name, (model, recipe) in subjects.items():
            with _blaming(name):
                workers[name] = executor.own_worker()
                workers[name].call(
                    f"{_TASKS}:open_subject", name, model, recipe.runtime, dict(recipe.settings), bench, batch,
                    timeout_seconds=_OPEN_SECONDS,
                )  # fmt: skip

        def time_round(name: str) -> float:
            found: float = workers[name].call(
                f"{_TASKS}:time_round",
                name,
                seconds,
                timeout_seconds=_ROUND_SECONDS,
                look_seconds=QUIET_SECONDS,
            )
            return found

        return in_turn(
            list(subjects), time_round,
            rounds=rounds, seed=bench.seed, enough_seconds=enough_seconds,
        )  # fmt: skip
    finally:
        for worker in workers.values():
            worker.close()


def timings(figures: Mapping[str, Sequence[float]], reference: str) -> list[Timing]:
    """Return what `times_in_turn` found, each with its own time and against `reference`."""
    pairs = {pair.name: pair for pair in paired(figures, reference, spread=PROCESS_SPREAD)}
    return [Timing(name, _latency(found), pairs.get(name)) for name, found in figures.items()]


def _latency(seconds: Sequence[float]) -> Measurement:
    found = median_interval([1e3 * each for each in seconds])
    return Measurement(found.value, "ms", found.low, found.high, len(seconds))


def in_turn(
    names: Sequence[str],
    measure: Callable[[str], float],
    *,
    rounds: int,
    seed: int,
    enough_seconds: float = math.inf,
) -> dict[str, list[float]]:
    """Return each subject's figures, one a round, the order changing from round to round.

    Args:
        names: The subjects'.
        measure: Returns a subject's figure.
        rounds: How many.
        seed: Of the order.
        enough_seconds: After which no round begins once there are `LEAST_ROUNDS`.

    Raises:
        SubjectError: If measuring one fails, naming it.
    """
    figures: dict[str, list[float]] = {name: [] for name in names}
    random = np.random.default_rng(seed)
    started = time.monotonic()
    for done in range(rounds):
        if done >= LEAST_ROUNDS and time.monotonic() - started > enough_seconds:
            break
        for position in random.permutation(len(names)):
            name = names[position]
            with _blaming(name):
                figures[name].append(measure(name))
    return figures


@contextmanager
def _blaming(name: str) -> Iterator[None]:
    """Let failures within name the subject that failed."""
    try:
        yield
    except StropError as error:
        raise SubjectError(name, gist(error)) from error


def paired(
    figures: Mapping[str, Sequence[float]],
    reference: str,
    *,
    spread: float = 0.0,
    confidence: float = 0.95,
) -> list[Pair]:
    """Return each subject but the reference against it, and against the first of them.

    Args:
        figures: By subject, one a round, of the same rounds.
        reference: The name of the one that the others are held against.
        spread: Standard deviation of what tells two processes of the same thing apart for good (log ratio).
        confidence: At which all intervals with the reference hold at once.
    """
    if len(figures) < 2:
        return []
    rounds = len(figures[reference])
    level = simultaneous_confidence(confidence, len(figures) - 1)

    def ratio(name: str, other: str) -> Measurement:
        found = with_spread(ratio_interval(figures[name], figures[other], level), spread, level)
        return Measurement(found.value, "ratio", found.low, found.high, rounds, confidence)

    ratios = {name: ratio(name, reference) for name in figures if name != reference}
    first = min(ratios, key=lambda name: ratios[name].value)
    return [
        Pair(name, found, rounds, None if name == first else ratio(name, first))
        for name, found in ratios.items()
    ]
