"""Fidelity: how well a candidate's answers survived, held against the original's on the same samples."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core import registry
from strop.core.contracts import Metric
from strop.core.errors import JudgingError, MetricError, ParameterError, message
from strop.core.evaluation import TOP1_AGREEMENT, Fidelity, Measurement, OutputDifference
from strop.core.predictor import Predictor
from strop.core.samples import Samples
from strop.core.signature import Arrays, Signature
from strop.numerics import similarity
from strop.numerics.statistics import (
    Interval,
    bootstrap_interval,
    paired_drop_interval,
    proportion_interval,
)

Outputs = Sequence[NDArray[Any]]
_SMALLEST_SCALE = 1e-12
# A user's metric may take seconds a call, and each trial is judged.
_BOOTSTRAP_SECONDS = 2.0


@dataclass(frozen=True)
class Question:
    """A quality metric ready to be asked: one of ours, or the user's function.

    Attributes:
        title: As the report writes it.
        metric: One of ours; None for the user's function.
        function: ``(output, target) -> float``. A user's may say by attributes of its own, ``higher_is_better`` and
            ``is_bounded``, what a metric of ours says by its class; both are taken for true where it does not.
        because: One sentence: which metric, and why.
    """

    title: str
    metric: Metric | None
    function: Callable[[NDArray[Any], NDArray[Any]], float]
    because: str

    @property
    def higher_is_better(self) -> bool:
        """Whether more is better."""
        return bool(getattr(self._says, "higher_is_better", True))

    @property
    def is_bounded(self) -> bool:
        """Whether a drop is absolute; relative where not."""
        return bool(getattr(self._says, "is_bounded", True))

    @property
    def _says(self) -> object:
        return self.function if self.metric is None else self.metric

    @property
    def direction(self) -> str:
        """Which way is better, and what a drop is, in words."""
        better = "more" if self.higher_is_better else "less"
        drop = "absolute" if self.is_bounded else "relative to the original's figure"
        return f"{better} is better, and a drop is {drop}"

    def ask(self, output: NDArray[Any], target: NDArray[Any]) -> float:
        """Return the metric's value.

        Raises:
            MetricError: If the function fails or gives no finite number.
        """
        try:
            value = float(self.function(output, target))
        except MetricError:
            raise
        # The function may be the user's, so any error may come out of it.
        except Exception as error:  # noqa: BLE001
            raise MetricError(
                message(
                    f"the metric '{self.title}' failed: {type(error).__name__}: {error}",
                    f"It was given an output of shape {output.shape} and a target of shape {target.shape}.",
                )
            ) from None
        if not math.isfinite(value):
            raise MetricError(
                f"the metric '{self.title}' gave {value}, which is not a finite number"
            )
        return value


def choose_metrics(
    name: str | None, outputs: Outputs, targets: Arrays, signature: Signature
) -> dict[str, Question]:
    """Return the metric to judge each output by that has targets, in the signature's order.

    A function is asked of each of them. A metric of ours is asked where it fits, or, where it fits none, of
    the first and those like it; the others keep the metric that is picked for them.

    Args:
        name: A metric's name, ``top_k(k=3)`` with settings, ``package.module:function``, or None to pick.
        outputs: A few outputs of the original, in the signature's order.
        targets: Their targets, by output name.
        signature: Names the outputs.

    Returns:
        Questions by output name; empty where there are no targets.

    Raises:
        UnknownNameError: If there is no metric of that name.
        ParameterError: If the function can't be found, or no metric fits what there is.
    """
    if not targets:
        if name:
            raise ParameterError(
                message(
                    f"the metric '{name}' needs targets, and the samples have none.",
                    "Give targets with the samples, or leave the metric out: then the agreement with "
                    "the original is judged.",
                )
            )
        return {}
    given = {
        of: (output, targets[of])
        for of, output in zip(signature.output_names, outputs, strict=True)
        if of in targets
    }
    named: dict[str, Question] = {}
    if name and ":" in name:
        asked = Question(name, None, user_function(name), f"judged by {name}, as asked for")
        named = dict.fromkeys(given, replace(asked, because=f"{asked.because}: {asked.direction}"))
    elif name:
        kind, _, settings = name.partition("(")
        found = registry.metrics.get(kind.strip()).from_settings(_settings(settings))
        because = f"judged by {found.title}, as asked for"
        question = Question(found.title, found, found.value, because)
        named = dict.fromkeys(_meant(found, given), question)
    return {of: named.get(of) or _picked(of, *pair) for of, pair in given.items()}


_Given = Mapping[str, tuple[NDArray[Any], NDArray[Any]]]


def _meant(metric: Metric, given: _Given) -> list[str]:
    """Return the outputs that a metric is meant for which was asked for by name alone."""
    fitting = [of for of, pair in given.items() if metric.fits(*pair)]
    # Some metrics fit nothing by themselves (AUC, RMSE), so that they are never picked.
    kinds = {of: _fitting(*pair) for of, pair in given.items()}
    first = next(iter(kinds.values()))
    return fitting or [of for of, kind in kinds.items() if kind is first]


def _fitting(output: NDArray[Any], target: NDArray[Any]) -> type[Metric] | None:
    return next((kind for kind in registry.metrics if kind.fits(output, target)), None)


def _picked(of: str, output: NDArray[Any], target: NDArray[Any]) -> Question:
    kind = _fitting(output, target)
    if kind is None:
        raise ParameterError(
            message(
                f"no metric fits targets of shape {target.shape} ({target.dtype}) with '{of}', whose outputs "
                f"have shape {output.shape}.",
                f"Name one ({', '.join(registry.metrics.names())}), or give your own function.",
                next_step="--metric my_module:my_metric",
            )
        )
    metric = kind()
    why = (
        f"judged by {metric.title}, since targets of shape {target.shape[1:] or 'one'} and kind "
        f"{target.dtype} stand beside outputs of shape {output.shape[1:]}"
    )
    return Question(metric.title, metric, metric.value, why)


def reasons(questions: Mapping[str, Question]) -> str:
    """Return one line that says which metrics `questions` are, and why."""
    if len(set(questions.values())) == 1:
        return next(iter(questions.values())).because
    return "; ".join(f"'{of}' is {question.because}" for of, question in questions.items())


def _settings(text: str) -> dict[str, object]:
    pairs = [part.partition("=") for part in text.rstrip(")").split(",") if "=" in part]
    return {
        key.strip(): int(value) if value.strip().isdigit() else value.strip()
        for key, _, value in pairs
    }


def user_function(name: str) -> Callable[..., Any]:
    """Return the function called ``package.module:function``; the current folder is searched too.

    Raises:
        ParameterError: If module or function are not there, or the module fails.
    """
    module_name, _, function_name = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module_name), function_name)  # type: ignore[no-any-return]
    # The module is the user's, so any error may come out of it.
    except Exception as error:  # noqa: BLE001
        raise ParameterError(
            message(
                f"'{name}' can't be used: {type(error).__name__}: {error}",
                "It must name a function in a module that Python finds from here.",
            )
        ) from None


def predict_all(
    predictor: Predictor,
    samples: Samples,
    *,
    batch: int = 32,
    report: Callable[[float], None] = lambda share: None,
) -> list[NDArray[Any]]:
    """Return the outputs for all samples, in the signature's order.

    Args:
        predictor: What answers.
        samples: What is asked.
        batch: How many at once, where the predictor takes any number; else as it takes.
        report: Told what share of them is answered.
    """
    parts, done = [], 0
    for arrays in samples.batches(predictor.batch_for(batch)):
        parts.append(predictor.run_all(arrays))
        done += len(next(iter(arrays.values())))
        report(done / len(samples))
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def judge(
    reference: Outputs,
    candidate: Outputs,
    targets: Arrays,
    *,
    signature: Signature,
    questions: Mapping[str, Question],
    split: str,
    confidence: float = 0.95,
    seed: int = 0,
    floor: float = 0.0,
) -> Fidelity:
    """Return how well `candidate` answers, beside `reference`, on the same samples.

    Args:
        reference: The original's outputs, in the signature's order.
        candidate: The candidate's.
        targets: By output name; not every output needs one.
        signature: Names the outputs.
        questions: The metric of each output that has targets; see `choose_metrics`.
        split: Which split the samples are from.
        confidence: Level of the intervals.
        seed: For bootstraps.
        floor: The drop that the original shows against itself.

    Raises:
        MetricError: If the metric fails on the original's outputs.
        JudgingError: If it does on the candidate's alone.
    """
    names = signature.output_names
    outputs = tuple(
        _difference(n, r, c) for n, r, c in zip(names, reference, candidate, strict=True)
    )
    count = len(reference[0]) if reference else 0
    if not all(output.finite for output in outputs):
        worst = Measurement(1.0, "", 1.0, 1.0, count, confidence)
        return Fidelity(worst, "everything", None, None, outputs, count, split, floor)
    if questions:
        judged = {
            name: _metric_drop(before, after, targets[name], questions[name], confidence, seed)
            for name, before, after in zip(names, reference, candidate, strict=True)
            if name in questions
        }
        first = next(iter(judged))
        _, metric, baseline = judged[first]
        drop, of = _worst({name: found[0] for name, found in judged.items()})
        drop_of = questions[of].title if len(judged) == 1 else f"{questions[of].title} of '{of}'"
        place = names.index(of)
        asked = questions[of], reference[place], candidate[place], targets[of]
        adds_up = questions[of].is_bounded and _scores(*asked) is not None
        return Fidelity(
            drop, drop_of, metric, baseline, outputs, count, split, floor, questions[first].title, adds_up
        )  # fmt: skip
    agreements = {
        name: _agreement_drop(before, after, confidence, seed)
        for name, before, after in zip(names, reference, candidate, strict=True)
    }
    drop, of = _worst({name: found[0] for name, found in agreements.items()})
    drop_of = agreements[of][1]
    adds_up = drop_of == TOP1_AGREEMENT
    return Fidelity(drop, drop_of, None, None, outputs, count, split, floor, adds_up=adds_up)


def _worst(drops: Mapping[str, Measurement]) -> tuple[Measurement, str]:
    """Return the largest drop with its output's name; its upper bound is the largest of all, so that it holds for each."""
    of = max(drops, key=lambda name: drops[name].value)
    return replace(drops[of], high=max(drop.high for drop in drops.values())), of


def _difference(name: str, reference: NDArray[Any], candidate: NDArray[Any]) -> OutputDifference:
    return OutputDifference(
        name,
        similarity.max_abs_difference(reference, candidate),
        similarity.mean_abs_difference(reference, candidate),
        similarity.sqnr_db(reference, candidate),
        similarity.relative_error(reference, candidate),
        similarity.top1_agreement(reference, candidate) if is_classifier(reference) else None,
        bool(np.isfinite(candidate).all()) if candidate.dtype.kind == "f" else True,
    )


def is_classifier(output: NDArray[Any]) -> bool:
    """Say whether an output looks like class scores: rows of at least two that sum to one, or ten logits and more.

    Rows of fewer plain numbers may as well be coordinates, whose largest entry means nothing.
    """
    if output.ndim != 2 or output.shape[1] < 2 or output.dtype.kind != "f" or not len(output):
        return False
    sums = output.astype(np.float64).sum(-1)
    # Softmax in bfloat16 sums to one within its eight bits.
    probabilities = bool(np.all(np.abs(sums - 1) < 2**-7) and output.min() >= -(2**-7))
    return probabilities or output.shape[1] >= 10


def _metric_drop(
    reference: NDArray[Any],
    candidate: NDArray[Any],
    target: NDArray[Any],
    question: Question,
    confidence: float,
    seed: int,
) -> tuple[Measurement, Measurement, Measurement]:
    baseline = question.ask(reference, target)
    try:
        value = question.ask(candidate, target)
    except MetricError as error:
        raise JudgingError(f"{error}\nOn the original's answers it did not fail.") from None
    sign = 1.0 if question.higher_is_better else -1.0
    scale = 1.0 if question.is_bounded else max(abs(baseline), _SMALLEST_SCALE)
    count = len(reference)
    scores = _scores(question, reference, candidate, target)
    if scores is not None:
        interval = paired_drop_interval(*scores, confidence)
        interval = (
            interval if sign > 0 else Interval(-interval.value, -interval.high, -interval.low)
        )
    else:
        interval = bootstrap_interval(
            _drop_of_resample(question, reference, candidate, target, sign),
            count,
            confidence=confidence,
            seconds=_BOOTSTRAP_SECONDS,
            seed=seed,
        )
    drop = Measurement(
        interval.value / scale,
        "",
        interval.low / scale,
        interval.high / scale,
        count,
        confidence,
    )
    spread = [
        _metric_interval(question, output, target, figure, confidence, seed)
        for output, figure in ((candidate, value), (reference, baseline))
    ]
    return drop, spread[0], spread[1]


def _scores(
    question: Question,
    reference: NDArray[Any],
    candidate: NDArray[Any],
    target: NDArray[Any],
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    if question.metric is None:
        return None
    one = question.metric.per_sample(reference, target)
    other = question.metric.per_sample(candidate, target)
    return None if one is None or other is None else (one, other)


def _drop_of_resample(
    question: Question,
    reference: NDArray[Any],
    candidate: NDArray[Any],
    target: NDArray[Any],
    sign: float,
) -> Callable[[NDArray[np.intp]], float]:
    before, after = (_value_of_resample(question, o, target) for o in (reference, candidate))

    def drop(chosen: NDArray[np.intp]) -> float:
        try:
            return sign * (before(chosen) - after(chosen))
        except MetricError:  # a resample may lack a class; the whole set was asked before
            return math.nan

    return drop


def _value_of_resample(
    question: Question, output: NDArray[Any], target: NDArray[Any]
) -> Callable[[NDArray[np.intp]], float]:
    metric = question.metric
    rows = metric.statistics(output, target) if metric else None
    if metric is None or rows is None:
        return lambda chosen: question.ask(output[chosen], target[chosen])
    # Counting how often each sample was drawn takes no copy of the rows, as choosing them would.
    return lambda chosen: metric.value_of(np.bincount(chosen, minlength=len(rows)) @ rows)


def _metric_interval(
    question: Question,
    output: NDArray[Any],
    target: NDArray[Any],
    value: float,
    confidence: float,
    seed: int,
) -> Measurement:
    count = len(output)
    scores = question.metric.per_sample(output, target) if question.metric else None
    if scores is not None and set(np.unique(scores)) <= {0.0, 1.0}:
        interval = proportion_interval(int(scores.sum()), count, confidence)
    elif scores is not None:
        interval = bootstrap_interval(
            lambda chosen: float(scores[chosen].mean()),
            count,
            confidence=confidence,
            seed=seed,
        )
    else:
        interval = Interval(value, -math.inf, math.inf)  # the drop's is what limits are held to
    return Measurement(value, "", interval.low, interval.high, count, confidence)


def _agreement_drop(
    reference: NDArray[Any], candidate: NDArray[Any], confidence: float, seed: int
) -> tuple[Measurement, str]:
    count = len(reference)
    if is_classifier(reference):
        changed = int((np.argmax(reference, -1) != np.argmax(candidate, -1)).sum())
        share = proportion_interval(changed, count, confidence)
        return Measurement(*_plain(share), count, confidence), TOP1_AGREEMENT
    # Energies add up over samples, so that a resample costs two sums and not another pass over all outputs.
    noise, signal = (
        np.square(np.asarray(array, np.float64)).reshape(count, -1).sum(-1)
        for array in (np.asarray(reference, np.float64) - candidate, reference)
    )

    def error(chosen: NDArray[np.intp]) -> float:
        energy = float(signal[chosen].sum())
        if not energy:
            return math.inf if noise[chosen].any() else 0.0
        return math.sqrt(float(noise[chosen].sum()) / energy)

    interval = bootstrap_interval(error, count, confidence=confidence, seed=seed)
    return Measurement(*_plain(interval), count, confidence), "relative error"


def _plain(interval: Interval) -> tuple[float, str, float, float]:
    return interval.value, "", interval.low, interval.high
