"""Quality of one way's answers, and the time of its calls."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.by_hand.way import Array, Opened, Workplace
from benchmarks.cases import Samples

_WARM_UP_CALLS, _WARM_UP_SECONDS = 3, 0.5
_BATCHES = 8


@dataclass(frozen=True)
class Quality:
    """How well the answers are, beside the original's.

    Attributes:
        accuracy: Share of right answers; None without labels.
        reference_accuracy: The original model's, on the same samples.
        sqnr_db: Power of the original's answers over the power of the difference, of the worst
            output; infinite where nothing differs.
        finite: Whether all answers are finite numbers.
    """

    accuracy: float | None
    reference_accuracy: float | None
    sqnr_db: float
    finite: bool


def judge(opened: Opened, workplace: Workplace) -> Quality:
    """Compare the answers to all evaluation samples with the labels and with the original's."""
    samples = workplace.case.draw().evaluate
    answers = _answer_all(opened, samples, workplace.batch)
    with np.load(workplace.folder / "reference.npz") as arrays:
        reference = [arrays[name] for name in arrays.files]
    pairs = list(zip(reference, answers, strict=True))
    return Quality(
        accuracy=_accuracy(answers[0], samples.labels),
        reference_accuracy=_accuracy(reference[0], samples.labels),
        sqnr_db=min(sqnr_db(original, candidate) for original, candidate in pairs),
        finite=all(bool(np.isfinite(answer).all()) for answer in answers),
    )


def _answer_all(opened: Opened, samples: Samples, batch: int) -> list[Array]:
    (inputs,) = samples.inputs.values()
    if opened.predict_many is not None:
        return opened.predict_many(inputs)
    calls = -(-len(samples) // batch)
    parts = [opened.predict(*samples.batch(index, batch).values()) for index in range(calls)]
    # The last batch is filled up from the start again.
    return [np.concatenate(output)[: len(samples)] for output in zip(*parts, strict=True)]


def _accuracy(scores: Array, labels: NDArray[np.int64] | None) -> float | None:
    if labels is None:
        return None
    return float((scores.argmax(axis=-1) == labels).mean())


def sqnr_db(original: Array, candidate: Array) -> float:
    """Return the signal-to-quantization-noise ratio, 10·log10(Σ y² / Σ (y − ŷ)²)."""
    signal = original.astype(np.float64)
    noise = signal - candidate.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(10 * np.log10(np.sum(signal**2) / np.sum(noise**2)))


class Clock:
    """Times calls on a few batches in turn, as they would come in."""

    def __init__(self, opened: Opened, workplace: Workplace) -> None:
        samples = workplace.case.draw().evaluate
        self._predict = opened.predict
        self._batches = [
            next(iter(samples.batch(index, workplace.batch).values())) for index in range(_BATCHES)
        ]
        self._next = 0

    def warm_up(self) -> None:
        """Call until first-call work is done and caches are warm."""
        start = time.perf_counter()
        calls = 0
        while calls < _WARM_UP_CALLS or time.perf_counter() - start < _WARM_UP_SECONDS:
            self.time_calls(1)
            calls += 1

    def time_calls(self, count: int) -> list[float]:
        """Return the seconds of each of `count` calls."""
        seconds = []
        for _ in range(count):
            batch = self._batches[self._next % _BATCHES]
            self._next += 1
            start = time.perf_counter()
            self._predict(batch)
            seconds.append(time.perf_counter() - start)
        return seconds

    def time_for(self, seconds: float) -> dict[str, Any]:
        """Call for that long and return the median, the 90th percentile and the number of calls."""
        taken: list[float] = []
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            taken += self.time_calls(1)
        return {
            "calls": len(taken),
            "median_seconds": float(np.median(taken)),
            "p90_seconds": float(np.percentile(taken, 90)),
        }


def file_bytes(path: Path) -> int:
    """Return the size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [x for x in path.rglob("*") if x.is_file()]
    return sum(file.stat().st_size for file in files)
