"""What was found out about a model: measurements, fidelity, evaluations; and the goal they are held to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from strop.core.errors import ParameterError
from strop.core.figures import figure

Objective = Literal["latency", "throughput", "size", "zipped-size", "memory", "cold-start"]
OBJECTIVES: tuple[Objective, ...] = (
    "latency",
    "throughput",
    "size",
    "zipped-size",
    "memory",
    "cold-start",
)
SIZES = frozenset({"size", "zipped-size"})
"""Objectives that are the same each time, however the model is run."""
TOP1_AGREEMENT = "top-1 agreement"
"""What a drop is of where a classifier has no targets: the share of answers that stayed the same."""
SAME_TO_5_DECIMALS = 0.5e-5
"""Figures that differ by less are written alike with five decimals."""


@dataclass(frozen=True)
class Measurement:
    """A value with its unit and its interval; never a lone number.

    Attributes:
        value: The point estimate, in `unit`.
        unit: ``ms``, ``1/s``, ``bytes``, ``count``, ``ratio``, ``dB``, or the empty string for plain numbers.
        low: Lower end of the interval; equals `value` where the figure is exact, infinite where nothing is known.
        high: Upper end of the interval.
        count: How many observations stand behind it.
        confidence: The interval's confidence level; 1.0 where the figure is exact.
    """

    value: float
    unit: str
    low: float
    high: float
    count: int = 1
    confidence: float = 0.95

    @classmethod
    def exact(cls, value: float, unit: str, count: int = 1) -> Measurement:
        """Return a figure that is counted and not sampled."""
        return cls(value, unit, value, value, count, 1.0)

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` takes back."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        """Return what `to_json` was called on."""
        ends = {name: figure(data[name]) for name in ("value", "low", "high")}
        return cls(**{**data, **ends})


@dataclass(frozen=True)
class OutputDifference:
    """How one output of a candidate differs from the original's, over all judged samples.

    Attributes:
        name: The output's logical name.
        max_abs: Largest absolute difference.
        mean_abs: Mean absolute difference.
        sqnr_db: Signal-to-quantization-noise ratio in dB; infinite where the outputs are equal.
        relative_error: Root of the noise's energy over the signal's; 0 where equal.
        top1_agreement: Share of samples whose largest entry is the same; None for what is no classifier.
        finite: Whether every value of the candidate's is finite.
    """

    name: str
    max_abs: float
    mean_abs: float
    sqnr_db: float
    relative_error: float
    top1_agreement: float | None
    finite: bool

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> OutputDifference:
        """Return the difference whose attributes are in `data`."""
        figures = {key: figure(value) for key, value in data.items() if key != "name"}
        return cls(**{**data, **figures})


@dataclass(frozen=True)
class Fidelity:
    """How well the answers survived.

    Attributes:
        drop: What `max_drop` bounds: the loss in the user's metric (absolute in [0, 1], relative for
            errors) where there are targets; else the share of changed top-1 answers for classifiers,
            the relative error for the rest; the worst output counts. With a paired interval.
        drop_of: What `drop` is a loss of, in words (``accuracy``, ``top-1 agreement``, ``relative error``).
        metric: The candidate's value of the user's metric, of the first output with targets; None without.
        baseline_metric: The original's, on the same samples.
        outputs: The numerical differences, per output.
        samples: How many samples were judged.
        split: Which split they are from.
        floor: The drop that the original shows against itself; 0 for a deterministic one.
        metric_of: What `metric` is, in words (``accuracy``); empty without targets.
        adds_up: Whether `drop` is a mean over samples, as that of accuracy is and that of AUC is not.
    """

    drop: Measurement
    drop_of: str
    metric: Measurement | None
    baseline_metric: Measurement | None
    outputs: tuple[OutputDifference, ...]
    samples: int
    split: str
    floor: float = 0.0
    metric_of: str = ""
    adds_up: bool = False

    @property
    def finite(self) -> bool:
        """Whether every output value is finite; what is not is never accepted."""
        return all(output.finite for output in self.outputs)

    def drop_with(self, other: Fidelity) -> float | None:
        """Return the drop on the samples of both; None where it can't be told from theirs.

        Args:
            other: The same model's quality on other samples.
        """
        if not (self.adds_up and other.adds_up and self.drop_of == other.drop_of):
            return None
        total = self.samples + other.samples
        return (self.drop.value * self.samples + other.drop.value * other.samples) / total

    @property
    def sqnr_db(self) -> float:
        """The worst output's signal-to-quantization-noise ratio."""
        return min((output.sqnr_db for output in self.outputs), default=math.inf)

    @property
    def max_abs(self) -> float:
        """The largest absolute difference of any output."""
        return max((output.max_abs for output in self.outputs), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` takes back."""
        return {
            **vars(self),
            "drop": self.drop.to_json(),
            "metric": self.metric and self.metric.to_json(),
            "baseline_metric": self.baseline_metric and self.baseline_metric.to_json(),
            "outputs": [dict(vars(output)) for output in self.outputs],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fidelity:
        """Return what `to_json` was called on."""
        metric, baseline = data["metric"], data["baseline_metric"]
        return cls(
            **{
                **data,
                "drop": Measurement.from_json(data["drop"]),
                "metric": metric and Measurement.from_json(metric),
                "baseline_metric": baseline and Measurement.from_json(baseline),
                "outputs": tuple(map(OutputDifference.from_json, data["outputs"])),
                "floor": figure(data["floor"]),
            }
        )


@dataclass(frozen=True)
class Goal:
    """What to minimize, under which limits.

    Attributes:
        minimize: The objective. ``throughput`` is maximized, of course.
        max_drop: The most that `Fidelity.drop` may be.
        confidence: Where given, the limit holds for the drop's upper bound at this level and not only
            for the point estimate.
        min_sqnr_db: Where given, the least signal-to-quantization-noise ratio of the worst output, in dB.
        batch_sizes: Batch sizes to measure; the objective is taken at the first.
        metric: The quality metric's name or ``package.module:function``; None to pick it.
    """

    minimize: Objective = "latency"
    max_drop: float = 0.01
    confidence: float | None = None
    min_sqnr_db: float | None = None
    batch_sizes: tuple[int, ...] = (1,)
    metric: str | None = None

    def __post_init__(self) -> None:
        mistakes = []
        if self.minimize not in OBJECTIVES:
            mistakes.append(
                f"minimize must be one of {', '.join(OBJECTIVES)}, not {self.minimize!r}"
            )
        if not self.max_drop >= 0:  # asked this way round, NaN fails too
            mistakes.append(f"max_drop must be a number from 0 up, not {self.max_drop!r}")
        if self.confidence is not None and not 0.5 <= self.confidence < 1:
            mistakes.append(f"confidence must lie in 0.5..1, not {self.confidence!r}")
        if not self.batch_sizes or any(size < 1 for size in self.batch_sizes):
            mistakes.append(
                f"batch sizes must be whole numbers from 1 up, not {self.batch_sizes!r}"
            )
        if mistakes:
            raise ParameterError("\n".join(mistakes))

    @property
    def batch(self) -> int:
        """The batch size at which the objective is taken."""
        return self.batch_sizes[0]

    def shortfall(self, fidelity: Fidelity, chosen_on: Fidelity | None = None) -> str | None:
        """Return why `fidelity` does not meet the limits, or None where it does.

        Args:
            fidelity: How well a model answers.
            chosen_on: The same model's quality on other samples, those that it was chosen by. The point estimate of
                the drop is then that on the samples of both: where one answer in twenty changes, 200 samples alone
                reject every fourth model that drops nothing, by chance. Against what `fidelity` proves by itself, its
                interval beyond the limit, the others count nothing.
        """
        if not fidelity.finite:
            return "gives outputs that are not finite"
        drop, limit = fidelity.drop, max(self.max_drop, fidelity.floor)
        pooled = fidelity.drop_with(chosen_on) if chosen_on and drop.low <= limit else None
        value = drop.value if pooled is None else pooled
        if value > limit:
            verb = "is" if fidelity.drop_of == "relative error" else "drops by"
            where = "" if pooled is None else " on these and the search's samples together"
            return f"{fidelity.drop_of} {verb} {value:.4g}{where}, more than the limit {limit:g}"
        if self.confidence is not None and drop.high > limit:
            if math.isinf(drop.high):
                return (
                    f"how much {fidelity.drop_of} may drop at {self.confidence:.0%} is not known: too few samples, "
                    "or a metric too slow to be asked of many resamples"
                )
            return (
                f"{fidelity.drop_of} may drop by {drop.high:.4g} "
                f"(upper bound at {self.confidence:.0%}), more than the limit {limit:g}"
            )
        if self.min_sqnr_db is not None and fidelity.sqnr_db < self.min_sqnr_db:
            return (
                f"SQNR is {fidelity.sqnr_db:.1f} dB, less than the limit {self.min_sqnr_db:g} dB"
            )
        return None

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` takes back."""
        return {**vars(self), "batch_sizes": list(self.batch_sizes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Goal:
        """Return what `to_json` was called on."""
        limits = {name: figure(data[name]) for name in ("max_drop", "min_sqnr_db")}
        return cls(**{**data, **limits, "batch_sizes": tuple(data["batch_sizes"])})


@dataclass(frozen=True)
class Evaluation:
    """All the measurements of one model under one runtime and its settings on one machine.

    Attributes:
        measurements: By name; per-batch figures carry the batch size: ``latency_p50@1`` (also p90, p99),
            ``throughput@32``; else ``size``, ``zipped_size``, ``peak_memory`` (over what the process held
            before), ``resident_memory`` (all that it holds), ``cold_start``; and of the original alone
            ``parameters`` and ``macs`` (multiply-accumulates a sample; absent where its graph does not tell).
        fidelity: How well the answers survived; None where it was not asked.
    """

    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    fidelity: Fidelity | None = None

    def objective(self, goal: Goal) -> Measurement | None:
        """Return the measurement that the goal minimizes (or maximizes); None where it wasn't made."""
        return self.measurements.get(objective_name(goal))

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` takes back."""
        return {
            "measurements": {n: m.to_json() for n, m in self.measurements.items()},
            "fidelity": self.fidelity and self.fidelity.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluation:
        """Return what `to_json` was called on."""
        fidelity = data["fidelity"]
        return cls(
            {n: Measurement.from_json(m) for n, m in data["measurements"].items()},
            fidelity and Fidelity.from_json(fidelity),
        )


def objective_name(goal: Goal) -> str:
    """Return the name of the measurement that `goal` is about."""
    names = {
        "latency": f"latency_p50@{goal.batch}",
        "throughput": f"throughput@{goal.batch}",
        "size": "size",
        "zipped-size": "zipped_size",
        "memory": "peak_memory",
        "cold-start": "cold_start",
    }
    return names[goal.minimize]
