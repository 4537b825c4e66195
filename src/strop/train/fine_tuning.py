"""Fine-tuning: a Keras model taught again after it was changed, its best weights kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras import ops

from strop.core.errors import ParameterError
from strop.core.samples import Samples
from strop.core.signature import Signature
from strop.graph.keras_layers import plain_layers
from strop.graph.keras_models import arranged, outputs_of
from strop.train.augmentation import Augmentation, augmentation
from strop.train.batches import batches
from strop.train.hints import LOGITS, Hints, hints_of, mistakes
from strop.train.lessons import ANSWERED_AT_ONCE, Lessons, lessons_of
from strop.train.watch import Report, Watch
from strop.train.whole_precision import WholePrecision, is_half

_LEARNING_RATE = 1e-3
_PATIENCE = 5  # epochs
_BEST, _EPOCHS = "best.npz", "epochs"  # within the folder to go on from


@dataclass(frozen=True)
class FineTuning:
    """How to teach.

    Attributes:
        epochs: How often all samples are gone through, at most.
        batch_size: Samples a step.
        learning_rate: At the beginning; it falls to nothing along a cosine. None for that of the optimizer that the model
            was compiled with, a schedule from its beginning, or else 0.001.
        teacher_share: Of the loss where there are targets too; without them the teacher's is all of it.
        patience: Epochs without a better loss on what was held out, after which it ends. None for 5 where
            `learning_rate` is None, and for no such end elsewhere: with a rate that falls to nothing the loss goes up and
            down first, and is least at the end.
        augment: How samples are changed at each step, as in `strop.train.augmentation`; the teacher then answers at each
            step too.
        method: What the teacher teaches: ``logits``: its answers alone; with the others, beside these, what layers
            within give (``features``), where they are active (``attention``), or how they tell samples apart
            (``relational``); see `strop.train.hints`. The teacher's layers are computed at each step then.
        weight: What the layers within count, the answers counting 1.
        layers: Pairs of the model's and the teacher's layers, by name; None for those that `strop.train.hints.hints_of`
            finds.
    """

    epochs: int = 5
    batch_size: int = 64
    learning_rate: float | None = None
    teacher_share: float = 0.5
    patience: int | None = None
    augment: tuple[str, ...] = ()
    method: str = LOGITS
    weight: float = 1.0
    layers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class FineTuned:
    """What became of it.

    Attributes:
        losses: On what was held out, an epoch each since training began or was gone on with.
        best: The epoch (from 0) whose weights the model has; None where none was kept.
        taught_by: What the loss was made of, in words.
        has_diverged: Whether it ended because the loss or a weight was no number any more.
        compared: The pairs of the model's and the teacher's layers that were compared.
    """

    losses: tuple[float, ...]
    best: int | None
    taught_by: str
    has_diverged: bool
    compared: tuple[tuple[str, str], ...] = ()


def fine_tune(
    model: Any,
    samples: Samples,
    signature: Signature,
    settings: FineTuning,
    *,
    teacher: Any = None,
    compiled: Any = None,
    callbacks: Sequence[Any] = (),
    is_enough: Callable[[], bool] | None = None,
    keep_from: int = 0,
    backup: Path | None = None,
    seed: int = 0,
    report: Report = lambda fraction, note: None,
) -> FineTuned:
    """Teach `model`, in place; it ends with the weights that did best on samples that were held out.

    It is taught by the targets, under the loss that it was compiled with where it was, and by what the teacher answers
    to the same samples; the teacher is asked once. The model itself is not compiled, nor is its optimizer used.

    Args:
        model: A built `keras.Model`.
        samples: The train split; a tenth is held out.
        signature: The model's: the names of inputs and outputs.
        settings: How to teach.
        teacher: A `keras.Model` of the same signature, usually what `model` was before it was changed; None for none.
        compiled: The `keras.Model` whose loss and optimizer are taken, where it has them; None for `model`.
        callbacks: Keras callbacks, told of steps and epochs as by `fit`.
        is_enough: Asked after each epoch that counts; where it says so, teaching ends with that epoch's weights.
        keep_from: The first epoch whose weights may be kept: in those before the model is still being changed.
        backup: A folder to go on from after an interruption, with the weights of the last epoch; emptied once all is
            done.
        seed: For the order of the samples, and for dropout.
        report: Told what share is done, and what there is to say.

    Raises:
        SamplesError: If there is nothing to be taught by, or there are too few samples.
        ParameterError: If layers can't be compared as the settings say.
    """
    keras.utils.set_random_seed(seed)
    compiled = model if compiled is None else compiled
    # What can't be is refused before the teacher is asked anything.
    augmented = augmented_by(teacher, model, signature, settings, seed)
    hints = hints_by(teacher, model, settings)
    lessons = lessons_of(
        model, samples, signature,
        teacher_share=settings.teacher_share, teacher=teacher, compiled=compiled,
    )  # fmt: skip
    return teach(
        Taught(model, signature, lessons, augmented, hints), settings,
        compiled=compiled, callbacks=callbacks, is_enough=is_enough, keep_from=keep_from, backup=backup, report=report,
    )  # fmt: skip


@dataclass(frozen=True)
class Augmented:
    """What changes a batch, and who answers to what it became.

    Attributes:
        change: Takes inputs in the signature's order, and returns what they became.
        answer: What the teacher answers to them, an output each; empty without a teacher.
    """

    change: Augmentation
    answer: Callable[[Sequence[Any]], list[Any]]


def augmented_by(
    teacher: Any, model: Any, signature: Signature, settings: FineTuning, seed: int
) -> Augmented | None:
    """Return what changes batches as the settings say, the teacher answering to each; None where nothing does.

    Raises:
        ParameterError: If the model's inputs can't be changed so.
    """
    if not settings.augment:
        return None

    # A function: a teacher among the attributes of a Keras model would be trained, and saved, with it.
    def answer(tensors: Sequence[Any]) -> list[Any]:
        if teacher is None:
            return []
        given = teacher(arranged(teacher, list(tensors), signature), training=False)
        return [ops.stop_gradient(tensor) for tensor in outputs_of(given, signature)]

    return Augmented(augmentation(settings.augment, signature, model=model, seed=seed), answer)


def hints_by(teacher: Any, model: Any, settings: FineTuning) -> Hints | None:
    """Return what the teacher's layers within teach as the settings say; None where they don't, or nobody teaches."""
    if teacher is None:
        if found := mistakes(settings.method, settings.weight, settings.layers):
            raise ParameterError("\n".join(found))
        return None
    return hints_of(
        model, teacher, settings.method, weight=settings.weight, layers=settings.layers
    )


class Taught(keras.Model):  # type: ignore[misc]
    """A model under a loss that is not its own; the weights are the model's.

    What projects its features for hints is learnt with it, and is no part of it.

    Attributes:
        student: The model.
        lessons: What it is taught by.
        hints: What layers within are taught; None for nothing.
    """

    def __init__(
        self,
        model: Any,
        signature: Signature,
        lessons: Lessons,
        augmented: Augmented | None = None,
        hints: Hints | None = None,
    ) -> None:
        super().__init__(name="taught")
        self.student, self.signature, self.lessons = model, signature, lessons
        self.hints = hints
        self.projections = hints.projections() if hints else []
        self._augmented = augmented

    def call(self, inputs: Any, training: bool = False) -> dict[str, Any]:
        """Return the model's ``outputs`` in the signature's order, and what `batch` tells.

        With hints also the ``features`` that are compared.
        """
        tensors, told = self.batch(inputs, training=training)
        given = arranged(self.student, tensors, self.signature)
        if self.hints is None:
            return {
                **told,
                "outputs": outputs_of(self.student(given, training=training), self.signature),
            }
        found = list(self.hints.student(given, training=training))
        count = len(self.signature.outputs)
        features = [p(f) for p, f in zip(self.projections, found[count:], strict=True)]
        return {**told, "outputs": found[:count], "features": features}

    def batch(self, inputs: Any, *, training: bool) -> tuple[list[Any], dict[str, Any]]:
        """Return a batch in the signature's order, and in training what else the loss needs.

        Where the batch is changed that is what a teacher answers to it (``answers``) and, where it is mixed, each sample's
        own share (``own``); with hints what the teacher's layers give (``wanted``).
        """
        tensors = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        told: dict[str, Any] = {}
        if not training:
            return tensors, told
        if self._augmented:
            changed = self._augmented.change(tensors)
            tensors = changed.inputs
            if changed.own is not None:
                told["own"] = changed.own
        if self.hints:
            answers, told["wanted"] = self.hints.given_by_teacher(tensors, self.signature)
        elif self._augmented:
            answers = self._augmented.answer(tensors)
        if self._augmented:
            told["answers"] = answers
        return tensors, told

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the lessons' loss, with what the model's own layers add to it.

        On what is held out it is without hints, since weights are chosen by it.
        """
        loss = self.lessons.loss(
            y_pred["outputs"], y, y_pred.get("own"), y_pred.get("answers", ())
        )
        if self.hints is not None and training:
            loss += self.hints.loss(y_pred["wanted"], y_pred["features"])
        return loss + sum(self.student.losses)


def teach(
    taught: Taught,
    settings: FineTuning,
    *,
    compiled: Any,
    callbacks: Sequence[Any] = (),
    is_enough: Callable[[], bool] | None = None,
    keep_from: int = 0,
    backup: Path | None = None,
    report: Report = lambda fraction, note: None,
) -> FineTuned:
    """Carry out the lessons; the student ends with the weights that did best on what is held out.

    Args:
        taught: The model with its lessons.
        settings: How to teach.
        compiled: The `keras.Model` whose optimizer is taken, where it has one.
        callbacks: As of `fine_tune`, like what follows.
        is_enough: Asked after each epoch that counts.
        keep_from: The first epoch whose weights may be kept.
        backup: A folder to go on from after an interruption.
        report: Told what share is done.
    """
    lessons, only = taught.lessons, taught.signature.batch
    batch = only or settings.batch_size
    taught([ops.convert_to_tensor(array[: only or 1]) for array in lessons.taught[0]])  # builds it
    steps = math.ceil(len(lessons.taught[0][0]) / batch)
    taught.compile(
        optimizer=_optimizer(compiled, settings, steps * settings.epochs, taught.student)
    )
    watch = Watch(
        taught.student, epochs=settings.epochs, steps=steps, patience=_patience(settings),
        keep_from=keep_from, is_enough=is_enough, report=report, kept=backup and backup / _BEST,
    )  # fmt: skip
    # Twice, since a process may be ended while it writes.
    also = (
        [keras.callbacks.BackupAndRestore(backup / _EPOCHS, double_checkpoint=True)]
        if backup
        else []
    )
    taught.fit(
        batches(lessons.taught, batch, shuffled=True), validation_data=batches(lessons.held_out, only or ANSWERED_AT_ONCE),
        epochs=settings.epochs, shuffle=False, verbose=0, callbacks=[*callbacks, watch, *also],
    )  # fmt: skip
    watch.restore()
    if backup:
        (backup / _BEST).unlink(missing_ok=True)  # the rest Keras has removed
    hints = taught.hints
    words = [lessons.spelled(), *([hints.spelled()] if hints else [])]
    return FineTuned(
        tuple(watch.losses),
        watch.best,
        " and ".join(words),
        watch.has_diverged,
        hints.pairs if hints else (),
    )


def _patience(settings: FineTuning) -> int:
    if settings.patience is not None:
        return settings.patience
    return settings.epochs if settings.learning_rate else _PATIENCE


def _optimizer(compiled: Any, settings: FineTuning, steps: int, student: Any) -> Any:
    """Return an optimizer of its own, such as a model was compiled with, or else Adam."""
    own = getattr(compiled, "optimizer", None)
    own = getattr(own, "inner_optimizer", own)  # what scales the loss has no rate of its own
    falling = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate or _LEARNING_RATE, max(steps, 1)
    )
    if own is None:
        made = keras.optimizers.Adam(falling)
    else:
        # Kept are the weights that do best, and not averages of them, which zeros and clusters would be lost in.
        config = {**own.get_config(), "use_ema": False}
        if settings.learning_rate is not None:
            config["learning_rate"] = keras.optimizers.schedules.serialize(falling)
        made = type(own).from_config(config)
    if any(map(is_half, student.trainable_variables)):
        made = WholePrecision(made)
    is_scaled = any(
        getattr(layer, "compute_dtype", "") == "float16" for layer in plain_layers(student)
    )
    # Gradients of half precision vanish unless the loss is scaled.
    return keras.optimizers.LossScaleOptimizer(made) if is_scaled else made
