"""What workers do when asked: functions of plain values, called by name from another process."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core import registry
from strop.core.contracts import Exactness, Needs, Runtime, Unchanged
from strop.core.errors import ConversionError, ModelError, message
from strop.core.evaluation import Evaluation, Fidelity, Measurement
from strop.core.model import Model
from strop.core.parameters import Value
from strop.core.predictor import Predictor
from strop.core.recipe import Step
from strop.core.samples import SPLITS, Samples, Splits
from strop.core.signature import Arrays, Signature
from strop.engine import measure
from strop.engine.context import Bench, EngineContext, Floor, home_runtime
from strop.engine.fidelity import Outputs, Question, choose_metrics, judge, predict_all
from strop.engine.verification import under_names_of
from strop.graph.describing import describe
from strop.graph.reading import Options, read
from strop.numerics.similarity import relative_error

CHECKED_SAMPLES = 8
LEAST_JUDGED = 64
_REPEATED_SAMPLES = 64
# Deep float32 networks reassociated by other kernels differ by some 1e-6 to 1e-5 of the signal; a wrong graph by 1e-1 and
# more. A thousandth parts the two.
LARGEST_ROUNDING = 1e-3
# Calls so short that it shows where the system put an engine's threads, and how often a model of such calls is opened
# once more to be timed.
_SHORT_SECONDS, _OPENINGS = 1e-3, 2
_CALLS_OF_FAR = 2
# Calls so long that what is cold at the beginning, caches above all, is little beside them.
_LONG_SECONDS = 0.25
_subjects: dict[str, tuple[Predictor, Arrays, float]] = {}


def read_source(path: str, workspace: str, options: Options) -> Model:
    """Return the source at `path` as a Model; see `strop.graph.reading.read`."""
    return read(Path(path), Path(workspace), options)


def opened(model: Model, runtime: str, settings: Mapping[str, Value]) -> Predictor:
    """Return `model` opened."""
    return registry.runtimes.get(runtime).from_settings(settings).open(model)


def answer_all(
    model: Model,
    runtime: str,
    settings: Mapping[str, Value],
    splits: str,
    folder: str,
    metric: str | None = None,
) -> Floor:
    """Write the original's answers to every split beneath `folder`; return what it differs from itself by.

    Args:
        model: The original.
        runtime: The runtime's name.
        settings: Its settings.
        splits: The folder of the four splits.
        folder: Where the answers go.
        metric: The study's, as for `strop.engine.fidelity.choose_metrics`.

    Raises:
        ModelError: If its answers are not finite.
        MetricError: If the metric fails on them, as it would for every candidate.
    """
    parts = Splits.load(Path(splits))
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    floor = Floor()
    questions: dict[str, Question] = {}
    with opened(model, runtime, settings) as predictor:
        for name in SPLITS[1:]:
            samples: Samples = getattr(parts, name)
            outputs = predict_all(predictor, samples)
            _refuse_not_finite(outputs, model)
            arrays: dict[str, Any] = {f"output_{i}": o for i, o in enumerate(outputs)}
            np.savez(target / f"{name}.npz", **arrays)
            if name == "select":
                questions = choose_metrics(metric, outputs, samples.targets, model.signature)
                if not _repeats(predictor, outputs, samples):
                    again = predict_all(predictor, samples)
                    floor = _floor(outputs, again, samples, model.signature, questions)
            # What candidates' answers will be asked, so that a metric that fails is told before any trial.
            for of, question in questions.items():
                place = model.signature.output_names.index(of)
                question.ask(outputs[place], samples.targets[of])
    return floor


def _refuse_not_finite(outputs: Outputs, model: Model) -> None:
    for spec, output in zip(model.signature.outputs, outputs, strict=True):
        if output.dtype.kind == "f" and not np.isfinite(output).all():
            share = float((~np.isfinite(output)).mean())
            raise ModelError(
                message(
                    f"the model's own output '{spec.name}' is not finite: {share:.1%} of its values are "
                    "NaN or infinite.",
                    "Nothing can be held to such answers; look at its weights, and whether the samples are "
                    "scaled as it wants them.",
                )
            )


def _repeats(predictor: Predictor, outputs: Outputs, samples: Samples) -> bool:
    """Say whether a second call answers a few samples as the first did, but for rounding."""
    few = samples.head(_REPEATED_SAMPLES)
    again = predict_all(predictor, few)
    return all(
        relative_error(before[: len(few)], after) < LARGEST_ROUNDING
        for before, after in zip(outputs, again, strict=True)
    )


def _floor(
    first: Outputs,
    again: Outputs,
    samples: Samples,
    signature: Signature,
    questions: Mapping[str, Question],
) -> Floor:
    """Return what two calls of an original that does not repeat itself differ by."""
    targets = samples.targets
    # Either call may as well have come first; the one that happened to score less is no better than the other. The
    # second stands for the original first, so that a metric that fails on it is told as failing on the original.
    drops = [
        judge(*pair, targets, signature=signature, questions=questions, split="select").drop.value
        for pair in ((again, first), (first, again))
    ]
    errors = [
        relative_error(before[few], after[few])
        for before, after in zip(first, again, strict=True)
        for few in _few_at_a_time(len(samples))
    ]
    return Floor(max(drops), max(errors))


def _few_at_a_time(count: int) -> list[slice]:
    """Return slices of as many samples as `check_answers` looks at: fewer differ more from each other than all do."""
    starts = range(0, max(count - CHECKED_SAMPLES, 0) + 1, CHECKED_SAMPLES)
    return [slice(start, start + CHECKED_SAMPLES) for start in starts]


def apply_pass(
    step: Step,
    model: Model,
    bench: Bench,
    workspace: str,
    runtime: str | None,
    settings: Mapping[str, Value],
    *,
    original: Model,
    backup: str | None = None,
    progress: Callable[[float, str], None],
) -> Model | Unchanged:
    """Return what the pass makes of `model`, checked numerically where it promises to keep the answers.

    Args:
        step: The pass.
        model: What it works on.
        bench: What it is given, and held to.
        workspace: An empty folder for what it makes.
        runtime: Where a pass that asks for quality has it judged.
        settings: That runtime's.
        original: What the passes before it began with.
        backup: A folder that outlives an interruption; None for none.
        progress: Told how far the pass is.

    Raises:
        ConversionError: If it changed the answers although it promised not to.
    """
    chosen = registry.passes.get(step.name).from_settings(step.settings)
    context = EngineContext(
        bench, Path(workspace), original, runtime=runtime, settings=settings, report=progress,
        backup=Path(backup) if backup else None,
    )  # fmt: skip
    outcome = chosen.apply(model, context)
    keeps_answers = chosen.exactness is not Exactness.LOSSY
    is_float = not any("quantize" in line for line in model.lineage)
    if keeps_answers and is_float and isinstance(outcome, Model):
        # What was taught in between answers otherwise than the original, and is held to itself.
        check_answers(outcome, bench, before=model if _is_taught(model) else None)
    return outcome


def _is_taught(model: Model) -> bool:
    """Say whether a pass that trains is among those that made a model."""
    names = {line.partition("(")[0] for line in model.lineage}
    return any(kind.needs is Needs.TRAINING for kind in registry.passes if kind.name in names)


apply_pass.reports_progress = True  # type: ignore[attr-defined]


def check_answers(model: Model, bench: Bench, before: Model | None = None) -> None:
    """Hold a few answers of `model` to those of `before`, or to the original's.

    Raises:
        ConversionError: With the numbers, where they differ by more than rounding.
    """
    samples = bench.samples().calibrate.head(CHECKED_SAMPLES)

    def answers(one: Model) -> Outputs:
        with home_runtime(one.form)().open(one) as predictor:
            return predict_all(predictor, samples)

    outputs = answers(model)
    wanted = answers(before) if before else bench.answers("calibrate", len(samples))
    for spec, was, now in zip(model.signature.outputs, wanted, outputs, strict=True):
        if now.shape != was.shape:
            raise ConversionError(
                f"changed the shape of '{spec.name}': {was.shape[1:]} became {now.shape[1:]}"
            )
        error = relative_error(was, now)
        if not error <= max(LARGEST_ROUNDING, bench.floor.relative_error):
            gap = float(np.max(np.abs(was.astype(np.float64) - now)))
            raise ConversionError(
                f"changed the answers: '{spec.name}' differs by {error:.2g} of its size "
                f"(largest difference {gap:.3g}); rounding alone stays below {LARGEST_ROUNDING:g}"
            )


def evaluate(
    model: Model,
    runtime: str,
    settings: Mapping[str, Value],
    bench: Bench,
    *,
    judged: int,
    judging_seconds: float,
    seconds: float,
    batch_sizes: tuple[int, ...],
    near_ms: float = math.inf,
    hopeless_ms: float = math.inf,
) -> Evaluation:
    """Return times, sizes, and quality on *select*.

    Args:
        model: What to evaluate.
        runtime: The runtime's name.
        settings: Its settings.
        bench: What the candidate is held to.
        judged: Most samples to judge on; 0 for none.
        judging_seconds: About the longest to judge; never fewer than 64 samples.
        seconds: Timing at each batch size.
        batch_sizes: The batch sizes to time.
        near_ms: Milliseconds a call from which on a time is too far behind to be told more exactly than by a few calls.
        hopeless_ms: Milliseconds a call (at the first batch size) from which on quality is not looked at.
    """
    engine = registry.runtimes.get(runtime).from_settings(settings)
    with engine.open(model) as predictor:
        measurements = measure.size(model) | timed(
            model, engine, predictor, bench,
            seconds=seconds, batch_sizes=batch_sizes, near_ms=near_ms, hopeless_ms=hopeless_ms,
        )  # fmt: skip
        taken = measurements.get(f"latency_p50@{batch_sizes[0]}")
        if not judged or (taken and taken.value > hopeless_ms):
            return Evaluation(measurements)
        rates = (m.value for name, m in measurements.items() if name.startswith("throughput"))
        count = max(min(judged, int(max(rates, default=1e3) * judging_seconds)), LEAST_JUDGED)
        return Evaluation(measurements, bench.judge_opened(model, predictor, most=count))


def time_alone(
    model: Model,
    runtime: str,
    settings: Mapping[str, Value],
    bench: Bench,
    *,
    seconds: float,
    batch_sizes: tuple[int, ...],
) -> dict[str, Measurement]:
    """Return latency and throughput at each batch size that a model takes; its answers are not looked at."""
    engine = registry.runtimes.get(runtime).from_settings(settings)
    with engine.open(model) as predictor:
        return timed(model, engine, predictor, bench, seconds=seconds, batch_sizes=batch_sizes)


def timed(
    model: Model,
    engine: Runtime,
    predictor: Predictor,
    bench: Bench,
    *,
    seconds: float,
    batch_sizes: tuple[int, ...],
    near_ms: float = math.inf,
    hopeless_ms: float = math.inf,
) -> dict[str, Measurement]:
    """Return latency and throughput at each batch size that the model takes; of a hopeless one by a single call."""
    found: dict[str, Measurement] = {}
    for batch in batch_sizes:
        if predictor.batch_sizes is not None and batch not in predictor.batch_sizes:
            continue
        inputs = batch_of(bench, batch)
        fastest = measure.warm_up(predictor, inputs, seconds=seconds / 3)
        if fastest * 1e3 > hopeless_ms:  # it may have been the first call, which compiles
            fastest = min(fastest, measure.time_round(predictor, inputs, 0.0)[1])
        if fastest * 1e3 > hopeless_ms:
            return found | measure.summarize(np.asarray([fastest * 1e9], np.int64), batch)
        least = _CALLS_OF_FAR if fastest * 1e3 > near_ms else measure.least_calls(fastest)
        durations = measure.latency(predictor, inputs, seconds=seconds, least=least)
        if fastest < _SHORT_SECONDS and not engine.loads_tensorflow:
            again = [_opened_anew(model, engine, inputs, seconds) for _ in range(_OPENINGS)]
            durations = min([durations, *again], key=np.median)
        found |= measure.summarize(durations, batch)
    return found


def _opened_anew(
    model: Model, engine: Runtime, inputs: Arrays, seconds: float
) -> NDArray[np.int64]:
    """Return the durations of calls of a model that is opened for them.

    Where the system happens to put an engine's threads, they stay for a while; another opening draws another place.
    """
    with engine.open(model) as predictor:
        measure.warm_up(predictor, inputs, seconds=seconds / 4)
        return measure.latency(predictor, inputs, seconds=seconds / 2)


def count(model: Model) -> dict[str, Measurement]:
    """Return ``parameters``, and ``macs`` a sample where the graph tells them, as `strop inspect` counts them."""
    found = describe(model)
    counts = {"parameters": found.parameters, "macs": found.macs}
    return {
        name: Measurement.exact(number, "count")
        for name, number in counts.items()
        if number is not None
    }


def batch_of(bench: Bench, size: int) -> Arrays:
    """Return a batch of real inputs (of *select*), repeated where there are too few."""
    samples = bench.samples().select
    index = np.arange(size) % len(samples)
    return {name: np.ascontiguousarray(array[index]) for name, array in samples.inputs.items()}


def confirm(
    model: Model,
    runtime: str,
    settings: Mapping[str, Value],
    bench: Bench,
    *,
    split: str = "confirm",
) -> Fidelity:
    """Return quality on *confirm*, which nobody has looked at before, or on another split."""
    return bench.judge(model, registry.runtimes.get(runtime).from_settings(settings), split)


def open_subject(
    name: str,
    model: Model,
    runtime: str,
    settings: Mapping[str, Value],
    bench: Bench,
    batch: int,
) -> None:
    """Open a model in this process and keep it, warm, for rounds of timing; inputs are matched as by `verify`."""
    inputs = under_names_of(model.signature, batch_of(bench, batch))
    predictor = opened(model, runtime, settings)
    _subjects[name] = predictor, inputs, measure.warm_up(predictor, inputs, seconds=0.3)


def time_round(name: str, seconds: float) -> float:
    """Return the median seconds of a call of a kept subject, over about `seconds`."""
    predictor, inputs, fastest = _subjects[name]
    # What went cold while another was timed warms up here: caches, and where calls are short enough for it to show,
    # processors that went to sleep.
    if fastest < _SHORT_SECONDS:
        measure.warm_up(predictor, inputs, seconds=seconds / 2)
    elif fastest < _LONG_SECONDS:
        predictor.run(inputs, copy=False)
    taken = measure.time_round(predictor, inputs, seconds)[1]
    _subjects[name] = predictor, inputs, min(fastest, taken)  # the first call may have compiled
    return taken
