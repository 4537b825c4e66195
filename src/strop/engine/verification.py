"""Holding one model's answers to another's, and an artifact to its certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core import registry
from strop.core.contracts import Predictor
from strop.core.errors import SamplesError, message
from strop.core.evaluation import Fidelity, Measurement
from strop.core.model import Model
from strop.core.parameters import Value
from strop.core.samples import Samples, Splits
from strop.core.signature import Arrays, Signature
from strop.engine import measure
from strop.engine.fidelity import choose_metric, judge, predict_all
from strop.numerics.similarity import max_abs_difference, relative_error

# A finished artifact on another machine may run other kernels of the same engine, in another order and, for integer
# models, one code apart: far below this. A file of another model is far above.
LARGEST_REFERENCE_ERROR = 0.05


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


def compare_answers(
    original: Opened,
    candidate: Opened,
    splits: str,
    metric: str | None,
    confidence: float,
    seed: int,
) -> Fidelity:
    """Return how well `candidate` answers beside `original`, on all samples that are for judging.

    Inputs are matched by name, or by place where names differ.

    Raises:
        SamplesError: If the candidate takes other shapes, or gives others.
    """
    parts = Splits.load(Path(splits))
    samples = _joined(parts.select, parts.confirm)
    with original.open() as predictor:
        reference = predict_all(predictor, samples)
    signature = original.model.signature
    with candidate.open() as predictor:
        found = predict_all(predictor, _renamed(samples, signature, candidate.model.signature))
    _check_shapes(reference, found, signature)
    question = choose_metric(metric, reference, samples.targets, signature)
    return judge(
        reference, found, samples.targets,
        signature=signature, question=question, split="select and confirm",
        confidence=confidence, seed=seed,
    )  # fmt: skip


def _joined(one: Samples, other: Samples) -> Samples:
    def both(a: Arrays, b: Arrays) -> Arrays:
        return {name: np.concatenate([a[name], b[name]]) for name in a}

    return Samples(both(one.inputs, other.inputs), both(one.targets, other.targets))


def _renamed(samples: Samples, original: Signature, candidate: Signature) -> Samples:
    """Return the samples under the candidate's names, cast to its dtypes."""
    if len(original.inputs) != len(candidate.inputs):
        raise SamplesError(
            message(
                f"the original takes {len(original.inputs)} inputs and the candidate {len(candidate.inputs)}.",
                f"Original: {original}. Candidate: {candidate}.",
            )
        )
    same = set(original.input_names) == set(candidate.input_names)
    pairs = {
        spec.name: samples.inputs[spec.name if same else original.inputs[place].name]
        for place, spec in enumerate(candidate.inputs)
    }
    candidate.check(pairs)
    return replace(
        samples,
        inputs={
            n: a.astype(s.dtype) for (n, a), s in zip(pairs.items(), candidate.inputs, strict=True)
        },
    )


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


def check_reference(artifact: Opened, folder: str, batch: int) -> list[Check]:
    """Return whether the artifact still gives its stored reference outputs, and how fast it is here."""
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
                    error <= LARGEST_REFERENCE_ERROR,
                    f"largest difference {gap:.3g}, {error:.2g} of its size",
                )
            )
        size = artifact.model.binding.batch or batch
        made = measure.one_batch(artifact.model.signature, size)
        measure.warm_up(predictor, made)
        timing = measure.summarize(measure.latency(predictor, made), size)
    latency: Measurement = timing[f"latency_p50@{size}"]
    checks.append(Check(f"median latency here, batch {size}", None, f"{latency.value:.4g} ms"))
    return checks
