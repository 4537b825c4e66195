"""What a model is taught by: its samples' targets, and what the model that it was made from answers."""

from __future__ import annotations

import enum
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from strop.core.errors import SamplesError

TEMPERATURE = 2.0  # of classes, for fine-tuning
# Variances below these shares of the mean square are no unit to measure an error in: there numbers are one and the same
# but for rounding. Answers are looked at all together and in double precision, features a batch at a time in float32.
LEAST_SPREAD, LEAST_SPREAD_IN_FLOAT32 = 1e-12, 1e-6
_LEAST = 1e-7  # probabilities below count as this, so that their logarithm is finite


class Kind(enum.StrEnum):
    """What the numbers of an output are."""

    PROBABILITIES = "probabilities"  # of classes, of which one holds: rows sum to one
    LOGITS = "logits"  # the same before the softmax
    PROBABILITY = "probability"  # of each by itself, from 0 to 1
    NUMBERS = "numbers"


def kind_of(answers: NDArray[Any], targets: NDArray[Any] | None) -> Kind:
    """Return what an output's numbers are, by what a trained model answers and, where there are any, its targets.

    Args:
        answers: What the model answers, samples first.
        targets: Classes as whole numbers (one axis less, or a last one of 1), one-hot rows, or numbers.
    """
    classes = answers.shape[-1] if answers.ndim > 1 else 1
    is_bounded = bool(answers.min() >= 0 and answers.max() <= 1)
    if classes > 1 and is_bounded and np.allclose(answers.sum(-1), 1.0, atol=1e-2):
        return Kind.PROBABILITIES
    if targets is not None and classes > 1 and _say_classes(targets, answers):
        return Kind.LOGITS
    if is_bounded and (targets is None or _are_shares(targets)):
        return Kind.PROBABILITY
    return Kind.NUMBERS


def refuse_targets(name: str, kind: Kind, targets: NDArray[Any], answers: NDArray[Any]) -> None:
    """Raise where an output can't be taught by targets.

    Args:
        name: The output's.
        kind: What it is.
        targets: As of `kind_of`.
        answers: What a model answers to the same samples.

    Raises:
        SamplesError: If there are fewer or more of them than samples, or they name classes that there are not.
    """
    if len(targets) != len(answers):
        raise SamplesError(
            f"there are {len(targets)} targets of '{name}' for {len(answers)} samples."
        )
    if kind not in (Kind.PROBABILITIES, Kind.LOGITS) or not _are_classes(targets, answers):
        return
    low, high, classes = int(targets.min()), int(targets.max()), answers.shape[-1]
    if low < 0 or high >= classes:
        raise SamplesError(
            f"targets of '{name}' name the class {low if low < 0 else high}; it has those from 0 to {classes - 1}."
        )


def task_loss(kind: Kind, targets: NDArray[Any], answers: NDArray[Any]) -> Any:
    """Return the loss that an output of a kind is usually trained by, for targets as they are written here."""
    if kind in (Kind.PROBABILITIES, Kind.LOGITS):
        of_classes = _are_classes(targets, answers)
        losses = keras.losses
        made = (
            losses.SparseCategoricalCrossentropy if of_classes else losses.CategoricalCrossentropy
        )
        return made(from_logits=kind is Kind.LOGITS)
    if kind is Kind.PROBABILITY:
        return keras.losses.BinaryCrossentropy()
    return keras.losses.MeanSquaredError()


def distillation_loss(
    kind: Kind,
    student: Any,
    teacher: Any,
    *,
    temperature: float = TEMPERATURE,
    spread: float | None = None,
) -> Any:
    """Return how far a student's answers are from its teacher's, a number.

    For classes it is the divergence KL(teacher ‖ student) at a temperature, times the temperature's square, so that
    its gradients are of the size of the task's; for probabilities the cross-entropy; for numbers the squared error
    over the teacher's variance.

    Args:
        kind: What the answers are.
        student: The student's, of any shape.
        teacher: The teacher's, of the same.
        temperature: What the logits of classes are divided by before their softmax: the higher, the more the unlikely
            classes count.
        spread: The variance of the teacher's numbers over all samples, which a batch of one or two tells nothing of;
            None for that of these.

    References:
        Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network*, 2015, section 2.
    """
    if kind in (Kind.PROBABILITIES, Kind.LOGITS):
        wanted, given = (
            ops.log_softmax(logits_of(kind, answers) / temperature, axis=-1)
            for answers in (teacher, student)
        )
        divergence = ops.sum(ops.exp(wanted) * (wanted - given), axis=-1)
        return temperature**2 * ops.mean(divergence)
    if kind is Kind.PROBABILITY:
        given = ops.clip(student, _LEAST, 1 - _LEAST)
        return -ops.mean(teacher * ops.log(given) + (1 - teacher) * ops.log(1 - given))
    variance = ops.var(teacher) if spread is None else spread
    return ops.mean(ops.square(student - teacher)) / (variance + _LEAST)


def logits_of(kind: Kind, answers: Any) -> Any:
    """Return answers about classes as logits, those of probabilities but for a constant."""
    if kind is Kind.PROBABILITIES:
        return ops.log(ops.clip(answers, _LEAST, 1.0))
    return answers


def _say_classes(targets: NDArray[Any], answers: NDArray[Any]) -> bool:
    return _are_classes(targets, answers) or _are_one_hot(targets, answers)


def _are_classes(targets: NDArray[Any], answers: NDArray[Any]) -> bool:
    is_column = targets.ndim == answers.ndim and targets.shape[-1] == 1
    shape = targets.shape[:-1] if is_column else targets.shape
    return shape == answers.shape[:-1] and bool(np.all(targets == np.round(targets)))


def _are_one_hot(targets: NDArray[Any], answers: NDArray[Any]) -> bool:
    same = targets.shape == answers.shape
    return same and _are_shares(targets) and bool(np.all(targets.sum(-1) == 1))


def _are_shares(targets: NDArray[Any]) -> bool:
    return bool(targets.min() >= 0 and targets.max() <= 1)
