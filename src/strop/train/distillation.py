"""Knowledge distillation: a student taught by what a larger model answers, and by what goes on within it.

The training is our own, the one that fine-tuning has, and not that of `keras.distillation.Distiller`, which runs the
student twice a step, as if in training when it is being validated too, asks the teacher for its answers anew in each
epoch, and leaves the teacher frozen. What layers within give is compared by the losses of
`strop.train.hints`, answers by `strop.train.losses.distillation_loss`, which probabilities can be given too; it is what `keras.distillation.LogitsDistillation` computes with ``loss=keras.losses.KLDivergence()``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from strop.core.errors import ModelError, ParameterError, message
from strop.core.samples import Samples
from strop.core.signature import Signature, TensorSpec
from strop.graph.keras_models import signature_of
from strop.train.fine_tuning import (
    FineTuned,
    FineTuning,
    Taught,
    augmented_by,
    hints_by,
    teach,
)
from strop.train.hints import mistakes
from strop.train.lessons import lessons_of
from strop.train.losses import TEMPERATURE
from strop.train.watch import Report


@dataclass(frozen=True)
class Distillation(FineTuning):
    """How to teach a student.

    Attributes:
        epochs: How often all samples are gone through, at most.
        teacher_share: Of the loss of the answers where there are targets too, as in `FineTuning`.
        temperature: Of the answers about classes, above 0; see `strop.train.losses.distillation_loss`.
    """

    epochs: int = 30
    teacher_share: float = 0.9
    temperature: float = TEMPERATURE


def distill(
    student: Any,
    teacher: Any,
    samples: Samples,
    signature: Signature,
    settings: Distillation = Distillation(),
    *,
    compiled: Any = None,
    callbacks: Sequence[Any] = (),
    is_enough: Callable[[], bool] | None = None,
    backup: Path | None = None,
    seed: int = 0,
    report: Report = lambda fraction, note: None,
) -> FineTuned:
    """Teach `student`, in place, by a teacher; it ends with the weights that did best on what was held out.

    Without targets the teacher's answers are all that there is to be learnt; they are asked for once. What its layers
    give is computed in each step, so that it takes no room.

    Args:
        student: A built `keras.Model`.
        teacher: A built `keras.Model` of the same signature; it stays as it is.
        samples: As of `strop.train.fine_tuning.fine_tune`, like what is not said here.
        signature: The teacher's.
        settings: How to teach.
        compiled: The `keras.Model` whose loss and optimizer are taken; None for the student if it was compiled, or else
            the teacher.
        callbacks: Keras callbacks.
        is_enough: Asked after each epoch.
        backup: A folder to go on from after an interruption.
        seed: For the order of the samples, for dropout, and for projections.
        report: Told what share is done.

    Raises:
        ModelError: If the student is not built, or has another signature.
        ParameterError: If a setting is out of its range, or layers can't be compared.
        UnknownNameError: If a name in `settings.layers` is no layer's.
        SamplesError: If there are too few samples.

    References:
        Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network*, 2015 (``logits``).
    """
    _refuse_settings(settings)
    refuse_other_signature(student, signature)
    if student is teacher:
        raise ModelError("the student is the teacher itself, which has nothing to learn from it.")
    keras.utils.set_random_seed(seed)
    if compiled is None:
        compiled = student if getattr(student, "compiled", False) else teacher
    augmented = augmented_by(teacher, student, signature, settings, seed)
    hints = hints_by(teacher, student, settings)
    lessons = lessons_of(
        student, samples, signature,
        teacher_share=settings.teacher_share, teacher=teacher, compiled=compiled, temperature=settings.temperature,
    )  # fmt: skip
    return teach(
        Taught(student, signature, lessons, augmented, hints), settings,
        compiled=compiled, callbacks=callbacks, is_enough=is_enough, backup=backup, report=report,
    )  # fmt: skip


def refuse_other_signature(student: Any, signature: Signature) -> None:
    """Raise `ModelError` where a student can't stand for a model, saying what is else.

    Where there is one input, or one output, its name may be another.

    Args:
        student: A `keras.Model`.
        signature: The other model's.
    """
    own = signature_of(student)
    wrong = [
        *_differences("input", own.inputs, signature.inputs),
        *_differences("output", own.outputs, signature.outputs),
    ]
    if wrong:
        raise ModelError(
            message(
                f"the student '{student.name}' can't stand for its teacher: {'; '.join(wrong)}.",
                "It needs inputs and outputs of the same names, in the same order, with the same shapes and types:",
                next_step=str(signature),
            )
        )


def _differences(what: str, own: Sequence[TensorSpec], wanted: Sequence[TensorSpec]) -> list[str]:
    if len(own) != len(wanted):
        return [f"it has {len(own)} {what}s, and not {len(wanted)}"]
    names = [spec.name for spec in own], [spec.name for spec in wanted]
    if len(own) > 1 and names[0] != names[1]:
        return [f"its {what}s are {', '.join(names[0])}, and not {', '.join(names[1])}"]
    return [
        f"its {what} '{one.name}' is {one.dtype}{list(one.shape)}, and not {other.dtype}{list(other.shape)}"
        for one, other in zip(own, wanted, strict=True)
        if one.dtype != other.dtype or not _fits(one.shape, other.shape)
    ]


def _fits(one: Sequence[int | None], other: Sequence[int | None]) -> bool:
    sizes = zip(one[1:], other[1:], strict=False)
    return len(one) == len(other) and all(None in pair or pair[0] == pair[1] for pair in sizes)


def _refuse_settings(settings: Distillation) -> None:
    found = mistakes(settings.method, settings.weight, settings.layers)
    if not settings.temperature > 0:
        found.append(f"temperature must be above 0, not {settings.temperature!r}")
    if found:
        raise ParameterError("\n".join(found))
