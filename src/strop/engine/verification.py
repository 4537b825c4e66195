"""Holding one model's answers to another's, and an artifact to its certificate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core import registry
from strop.core.errors import SamplesError, message
from strop.core.evaluation import SAME_TO_5_DECIMALS, Fidelity, Measurement
from strop.core.model import Model
from strop.core.parameters import Value
from strop.core.predictor import Predictor
from strop.core.samples import Samples, Splits
from strop.core.signature import Arrays, Signature
from strop.engine import measure
from strop.engine.fidelity import choose_metrics, judge, predict_all
from strop.numerics.similarity import max_abs_difference, relative_error

# A finished artifact on another machine may run other kernels of the same engine, in another order and, for integer
# models, one code apart: far below this. A file of another model is far above.
LARGEST_REFERENCE_ERROR = 0.05
_MOST_SCORED = 5
_MOMENT_SECONDS = 3.0


@dataclass(frozen=True)
class Opened:
    """A model with where and how it is run: plain values, sent to workers.

    Attributes:
        model: The model.
        runtime: The runtime's name.
        settings: Its settings.
    """

    model: Model
    runtime: str
    settings: Mapping[str, Value]

    def open(self) -> Predictor:
        """Return it opened."""
        return registry.runtimes.get(self.runtime).from_settings(self.settings).open(self.model)


@dataclass(frozen=True)
class Scores:
    """What two models answer to one sample, in an output that scores classes.

    Attributes:
        sample: The sample's place, from 0.
        output: The output's name.
        before: The original's score of each class.
        after: The candidate's.
    """

    sample: int
    output: str
    before: NDArray[Any]
    after: NDArray[Any]

    @property
    def max_abs(self) -> float:
        """The largest difference of any score."""
        return max_abs_difference(self.before, self.after)

    @property
    def is_same(self) -> bool:
        """Whether no score differs by more than 5 decimals show."""
        return self.max_abs < SAME_TO_5_DECIMALS


@dataclass(frozen=True)
class Comparison:
    """Two models' answers side by side.

    Attributes:
        fidelity: How well the candidate answers on all samples.
        scores: What both answer to the first few samples, an entry for each output that scores classes.
    """

    fidelity: Fidelity
    scores: tuple[Scores, ...]


def compare_answers(
    original: Opened,
    candidate: Opened,
    samples: str,
    metric: str | None,
    confidence: float,
    seed: int,
    *,
    progress: Callable[[float, str], None] = lambda share, note: None,
) -> Comparison:
    """Return how well `candidate` answers beside `original`, on all samples in the folder `samples`.

    Inputs and outputs are matched by name, or by place where names differ.

    Raises:
        SamplesError: If the candidate takes other shapes, or gives others.
    """
    given = Samples.load(Path(samples))
    clock = _Clock(progress)
    with original.open() as predictor:
        reference = predict_all(
            predictor, given, report=lambda share: clock.tell(share / 2, "the original answers")
        )
    signature = original.model.signature
    with candidate.open() as predictor:
        found = predict_all(
            predictor, _renamed(given, signature, candidate.model.signature),
            report=lambda share: clock.tell((1 + share) / 2, "the candidate answers"),
        )  # fmt: skip
    found = _in_order_of(signature, candidate.model.signature, found)
    _check_shapes(reference, found, signature)
    questions = choose_metrics(metric, reference, given.targets, signature)
    fidelity = judge(
        reference, found, given.targets,
        signature=signature, questions=questions, split="all of them",
        confidence=confidence, seed=seed,
    )  # fmt: skip
    return Comparison(fidelity, tuple(_scores(reference, found, signature)))


compare_answers.reports_progress = True  # type: ignore[attr-defined]


class _Clock:
    """Tells how far work is that has taken a while already, and about how long it goes on."""

    def __init__(self, progress: Callable[[float, str], None]) -> None:
        self._progress, self._began = progress, math.inf

    def tell(self, share: float, note: str) -> None:
        """Tell that `share` of the work is done, unless all is over in a moment, or over now."""
        # Not before the first answer: what opening takes says nothing of how long the others will.
        self._began = min(self._began, time.monotonic())
        spent = time.monotonic() - self._began
        if spent > _MOMENT_SECONDS and share < 1:
            self._progress(share, f"{note}, about {spent * (1 - share) / share:.0f} s left")


def _scores(
    reference: list[NDArray[Any]], found: list[NDArray[Any]], signature: Signature
) -> Iterator[Scores]:
    """Yield both models' scores of the first samples, of each output that has a number for each class."""
    for sample in range(min(len(reference[0]), _MOST_SCORED)):
        for spec, before, after in zip(signature.outputs, reference, found, strict=True):
            if before.ndim == 2 and before.shape[1] > 1:
                yield Scores(sample, spec.name, before[sample], after[sample])


def _joined(one: Samples, other: Samples) -> Samples:
    def both(a: Arrays, b: Arrays) -> Arrays:
        return {name: np.concatenate([a[name], b[name]]) for name in a}

    return Samples(both(one.inputs, other.inputs), both(one.targets, other.targets))


def _renamed(samples: Samples, original: Signature, candidate: Signature) -> Samples:
    """Return the samples under the candidate's names, cast to its dtypes."""
    in_order = {name: samples.inputs[name] for name in original.input_names}
    return replace(samples, inputs=under_names_of(candidate, in_order))


def under_names_of(candidate: Signature, inputs: Arrays) -> Arrays:
    """Return the original's inputs as a candidate takes them: by name, or by place where names differ.

    Args:
        candidate: The candidate's signature.
        inputs: By the original's names, in the original's order.

    Raises:
        SamplesError: If the candidate takes another number of inputs, or other shapes or dtypes.
    """
    if len(inputs) != len(candidate.inputs):
        raise SamplesError(
            message(
                f"the original takes {len(inputs)} inputs and the candidate {len(candidate.inputs)}.",
                f"Original: {', '.join(inputs)}. Candidate: {candidate}.",
            )
        )
    same = set(inputs) == set(candidate.input_names)
    by_place = zip(candidate.input_names, inputs.values(), strict=True)
    found = {name: inputs[name] for name in candidate.input_names} if same else dict(by_place)
    candidate.check(found)
    return {spec.name: found[spec.name].astype(spec.dtype) for spec in candidate.inputs}


def _in_order_of(
    original: Signature, candidate: Signature, outputs: list[NDArray[Any]]
) -> list[NDArray[Any]]:
    """Return a candidate's outputs in the original's order where names agree: converters shuffle them."""
    if set(original.output_names) != set(candidate.output_names):
        return outputs
    by_name = dict(zip(candidate.output_names, outputs, strict=True))
    return [by_name[name] for name in original.output_names]


def matched_by_place(original: Signature, candidate: Signature) -> list[Check]:
    """Return what is to be told of two models with several inputs or outputs whose names differ: who stands for whom."""
    sides = {
        "inputs": (original.input_names, candidate.input_names),
        "outputs": (original.output_names, candidate.output_names),
    }
    return [
        Check(
            f"{what} are matched by place, since their names differ",
            None,
            ", ".join(f"'{a}' with '{b}'" for a, b in zip(one, other, strict=False)),
        )
        for what, (one, other) in sides.items()
        if len(one) > 1 and set(one) != set(other)
    ]


def _check_shapes(
    reference: list[NDArray[Any]], found: list[NDArray[Any]], signature: Signature
) -> None:
    if len(reference) != len(found):
        raise SamplesError(
            f"the original gives {len(reference)} outputs and the candidate {len(found)}."
        )
    for spec, before, after in zip(signature.outputs, reference, found, strict=True):
        if before.shape != after.shape:
            raise SamplesError(
                f"the output '{spec.name}' has shape {before.shape[1:]} in the original and "
                f"{after.shape[1:]} in the candidate."
            )


@dataclass(frozen=True)
class Check:
    """One thing of an artifact that was checked again.

    Attributes:
        what: In words.
        holds: Whether it is as the certificate says; None for what is shown and not judged.
        found: What was found.
    """

    what: str
    holds: bool | None
    found: str


def judge_alone(
    artifact: Opened,
    splits: str,
    recorded: Fidelity | None,
    metric: str | None,
    max_drop: float,
    *,
    is_asked: bool = True,
) -> Check:
    """Return whether an artifact answers the given samples as well as the original did when it was made.

    The original is not at hand; its metric in the certificate stands for it. Samples that divide as those did
    of which the certificate tells are judged on the same part again (*confirm*), others on all that are for judging.

    Args:
        artifact: The artifact.
        splits: The folder of the samples.
        recorded: The certificate's fidelity.
        metric: The metric's name; None to pick it.
        max_drop: The most that the metric may be below the original's.
        is_asked: Whether the user asks for that; where the certificate tells it, the drop that it tells is held too,
            on the samples that it tells it of.

    Raises:
        SamplesError: If only the original itself could tell.
    """
    parts = Splits.load(Path(splits))
    alike = recorded is not None and recorded.samples == len(parts.confirm)
    samples = parts.confirm if alike else _joined(parts.select, parts.confirm)
    if not samples.targets:
        raise _needs_original(
            "the certificate has no answers of the original to these samples, which have no targets"
        )
    with artifact.open() as predictor:
        outputs = predict_all(predictor, samples)
    signature = artifact.model.signature
    questions = choose_metrics(metric, outputs, samples.targets, signature)
    if not questions or recorded is None or recorded.baseline_metric is None:
        raise _needs_original("the certificate has no metric of the original's")
    if len(samples.targets) > 1:
        raise _needs_original(
            "the certificate does not have the original's figure for each output"
        )
    ((name, question),) = questions.items()
    if question.title != recorded.drop_of:
        raise _needs_original(
            f"the certificate has the original's {recorded.drop_of}, not its {question.title}"
        )
    output = outputs[signature.output_names.index(name)]
    before, now = recorded.baseline_metric.value, question.ask(output, samples.targets[name])
    drop = (before - now) * (1.0 if question.higher_is_better else -1.0)
    drop /= 1.0 if question.is_bounded else max(abs(before), 1e-12)
    told = recorded.drop.value if alike and not is_asked else 0.0
    limit = max(max_drop, recorded.floor, told)
    # The two figures were rounded before they were taken from each other, and what is told was not made of them.
    rounding = 4 * float(np.spacing(max(abs(before), abs(now))))
    return Check(
        f"{question.title} on {len(samples)} samples",
        drop <= limit + rounding,
        f"{now:.4g}, where the original had {before:.4g}: a drop of {drop:.4g}, limit {limit:g}",
    )


def _needs_original(wrong: str) -> SamplesError:
    return SamplesError(
        message(
            f"{wrong}.",
            "Give the original beside the artifact.",
            next_step="strop verify model.keras model-strop/best --data val.npz",
        )
    )


def check_reference(
    artifact: Opened, folder: str, batch: int, tolerance: float | None = None
) -> list[Check]:
    """Return whether the artifact still gives its stored reference outputs, and how fast it is here.

    Args:
        artifact: The artifact.
        folder: Where it lies.
        batch: Batch size to time it at.
        tolerance: The largest absolute difference of any output; else one relative to its size.
    """
    checks = []
    with np.load(Path(folder) / "reference.npz") as stored, artifact.open() as predictor:
        count = len(artifact.model.signature.inputs)
        inputs = dict(
            zip(
                artifact.model.signature.input_names,
                [stored[f"input_{i}"] for i in range(count)],
                strict=True,
            )
        )
        outputs = predictor.run(inputs)
        for place, spec in enumerate(artifact.model.signature.outputs):
            wanted = stored[f"output_{place}"]
            same = outputs[place].shape == wanted.shape
            error = relative_error(wanted, outputs[place]) if same else float("inf")
            gap = max_abs_difference(wanted, outputs[place]) if same else float("inf")
            checks.append(
                Check(
                    f"reference output '{spec.name}'",
                    error <= LARGEST_REFERENCE_ERROR if tolerance is None else gap <= tolerance,
                    f"largest difference {gap:.3g}, {error:.2g} of its size",
                )
            )
        size = predictor.batch_for(batch)
        made = measure.one_batch(artifact.model.sized, size)
        measure.warm_up(predictor, made)
        timing = measure.summarize(measure.latency(predictor, made), size)
    latency: Measurement = timing[f"latency_p50@{size}"]
    checks.append(Check(f"median latency here, batch {size}", None, f"{latency.value:.4g} ms"))
    return checks
