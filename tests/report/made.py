"""Outcomes written out by hand, for what a report says of cases that no quick study ends in."""

from __future__ import annotations

import math
from pathlib import Path

from strop.core.evaluation import Evaluation, Fidelity, Goal, Measurement, OutputDifference
from strop.core.model import Binding, Form, Model
from strop.core.recipe import Recipe, Step
from strop.core.signature import Signature, TensorSpec
from strop.engine.ledger import Trial
from strop.engine.machine import this_machine, versions
from strop.engine.outcome import Circumstances, Outcome
from strop.engine.pairs import Pair

SIGNATURE = Signature(
    (TensorSpec("x", (None, 4), "float32"),), (TensorSpec("label", (None, 3), "float32"),)
)
SOURCE = Model(Form.ONNX, Path("dense.onnx"), SIGNATURE, Binding.plain(SIGNATURE), "0" * 64)


def fidelity(
    drop: float = 0.004, *, high: float = 0.009, samples: int = 250, split: str = "select",
    metric: float | None = 0.95, confidence: float = 0.95,
) -> Fidelity:  # fmt: skip
    """Return a fidelity of an original that is right in 0.954."""

    def measured(value: float, low: float, high: float) -> Measurement:
        return Measurement(value, "", low, high, samples, confidence)

    same = OutputDifference("label", 0.0, 0.0, math.inf, 0.0, 1.0, finite=True)
    judged = metric is not None
    return Fidelity(
        measured(drop, 0.0, high),
        "accuracy" if judged else "relative error",
        measured(metric, 0.9, 0.99) if metric is not None else None,
        measured(0.954, 0.9, 0.99) if judged else None,
        (same,),
        samples,
        split,
        metric_of="accuracy",
        adds_up=judged,
    )


def trial(
    number: int, recipe: Recipe, ms: float, size: int, found: Fidelity | None = None
) -> Trial:
    """Return a trial that took `ms` and `size` bytes."""
    figures = {
        "latency_p50@1": Measurement(ms, "ms", ms * 0.99, ms * 1.01, 100),
        "size": Measurement.exact(size, "bytes"),
    }
    return Trial(str(recipe), recipe, "done", "", Evaluation(figures, found), {}, 1.0, number)


BASELINE = trial(1, Recipe((), "onnxruntime"), 2.0, 4000)
BETTER = Recipe((Step("quantize.onnx_static"),), "onnxruntime")


def outcome(
    *, ms: float = 1.0, ratio: float | None = None, best: str = "better", **judged: float
) -> Outcome:
    """Return what a study of two trials found, the second of `ms` against the baseline's 2.0."""
    better = trial(2, BETTER, ms, 1000, fidelity(**judged))  # type: ignore[arg-type]
    middle = ms / 2 if ratio is None else ratio
    paired = Measurement(middle, "ratio", middle * 0.98, middle * 1.02, 24, 0.95)
    pairs = (Pair(str(BETTER), paired, 24),)
    chosen = {"better": better, "baseline": BASELINE}[best]
    confirmed = fidelity(**judged, split="confirm")  # type: ignore[arg-type]
    return Outcome(
        BASELINE, (BASELINE, better), chosen, None, SOURCE, confirmed, pairs, {},
        interrupted=False, by_user=False, seconds=9.0,
    )  # fmt: skip


def circumstances(**goal: object) -> Circumstances:
    """Return the circumstances of that study."""
    return Circumstances(
        "dense.onnx", SOURCE, Goal(**goal), "judged by accuracy", False, (),  # type: ignore[arg-type]
        this_machine().to_json(), versions(), "strop optimize dense.onnx --data val.npz", "2025-01-01", "quick",
    )  # fmt: skip
