"""Fine-tuning: a Keras model taught again after it was changed, its best weights kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from strop.core.errors import ParameterError, SamplesError, message
from strop.core.samples import Samples
from strop.core.signature import Signature
from strop.graph.keras_models import arranged, outputs_of
from strop.train.augmentation import MIX, Augmentation, augmentation
from strop.train.hints import LOGITS, Hints, hints_of, mistakes
from strop.train.losses import (
    TEMPERATURE,
    Kind,
    distillation_loss,
    kind_of,
    refuse_targets,
    task_loss,
)
from strop.train.whole_precision import WholePrecision, is_half

_LEARNING_RATE = 1e-3
_HELD_OUT, _MOST_HELD_OUT = 0.1, 2000
_LEAST_SAMPLES = 8
_ANSWERED_AT_ONCE = 256
_STEPS_A_LOOK = 20
_LEAST_SPREAD = 1e-12  # of a square
_BEST, _EPOCHS = "best.npz", "epochs"  # within the folder to go on from

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class FineTuning:
    """How to teach.

    Attributes:
        epochs: How often all samples are gone through, at most.
        batch_size: Samples a step.
        learning_rate: At the beginning; it falls to nothing along a cosine. None for the optimizer that the model was
            compiled with, as it is, or else 0.001 in Adam.
        teacher_share: Of the loss where there are targets too; without them the teacher's is all of it.
        patience: Epochs without a better loss on what was held out, after which it ends.
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
    patience: int = 5
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
        has_diverged: Whether it ended because the loss was no number any more.
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
    lessons = lessons_of(model, samples, signature, settings, teacher=teacher, compiled=compiled)
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
    looked_up = [layer for layer in _within(model) if isinstance(layer, keras.layers.Embedding)]
    if MIX in settings.augment and looked_up:
        raise ParameterError(
            message(
                f"the layer '{looked_up[0].name}' looks up numbers, and what lies between two of them is another word.",
                f"Do without '{MIX}'.",
            )
        )

    # A function: a teacher among the attributes of a Keras model would be trained, and saved, with it.
    def answer(tensors: Sequence[Any]) -> list[Any]:
        if teacher is None:
            return []
        given = teacher(arranged(teacher, list(tensors), signature), training=False)
        return [ops.stop_gradient(tensor) for tensor in outputs_of(given, signature)]

    return Augmented(augmentation(settings.augment, signature, seed=seed), answer)


def hints_by(teacher: Any, model: Any, settings: FineTuning) -> Hints | None:
    """Return what the teacher's layers within teach as the settings say; None where they don't, or nobody teaches."""
    if teacher is None:
        if found := mistakes(settings.method, settings.weight, settings.layers):
            raise ParameterError("\n".join(found))
        return None
    return hints_of(
        model, teacher, settings.method, weight=settings.weight, layers=settings.layers
    )


def answers_of(model: Any, samples: Samples, signature: Signature) -> list[NDArray[Any]]:
    """Return what a live model answers to samples, an array an output in the signature's order."""
    only, parts = signature.batch, []
    batches = samples.full_batches(only) if only else samples.batches(_ANSWERED_AT_ONCE)
    for batch in batches:
        part = [ops.convert_to_tensor(batch[name]) for name in signature.input_names]
        given = outputs_of(model(arranged(model, part, signature), training=False), signature)
        parts.append([ops.convert_to_numpy(tensor) for tensor in given])
    return [np.concatenate(output)[: len(samples)] for output in zip(*parts, strict=True)]


@dataclass(frozen=True)
class Lessons:
    """Samples with all that a model is taught by, those held out apart.

    Attributes:
        taught: Inputs, and what is wanted of the outputs: targets and the teacher's answers.
        held_out: The same of the others.
        kinds: What each output's numbers are, by its place.
        spreads: The variance of what the teacher answers, an output each.
        losses: The task's, by the place of the outputs that have targets.
        teacher_share: Of the loss, where there are both; 0 without a teacher.
        temperature: Of the teacher's answers about classes, as in `strop.train.losses.distillation_loss`.
    """

    taught: tuple[list[Any], dict[str, Any]]
    held_out: tuple[list[Any], dict[str, Any]]
    kinds: tuple[Kind, ...]
    spreads: tuple[float, ...]
    losses: Mapping[int, Any]
    teacher_share: float
    temperature: float = TEMPERATURE

    def loss(self, outputs: Sequence[Any], wanted: Mapping[str, Any], own: Any = None) -> Any:
        """Return the loss of a batch: of each output by its target, by its teacher, or by both.

        Args:
            outputs: The model's, in the signature's order.
            wanted: Targets and the teacher's answers.
            own: The share of each sample in what it became, where batches are mixed; its counterpart's targets are
                wanted as much as that has a share in it.
        """
        total = ops.zeros(())
        for place, output in enumerate(outputs):
            # In whole precision, whatever a layer of half of it gives.
            task, output = self.losses.get(place), ops.cast(output, "float32")
            share = 1.0 if task is None else self.teacher_share
            if task is not None:
                total += (1 - share) * _task(task, wanted[_target(place)], output, own)
            if _answer(place) in wanted:
                answer = ops.cast(wanted[_answer(place)], "float32")
                total += share * distillation_loss(
                    self.kinds[place], output, answer,
                    temperature=self.temperature, spread=self.spreads[place],
                )  # fmt: skip
        return total

    def spelled(self) -> str:
        """Return what the loss is made of, in words."""
        names = {
            str(getattr(loss, "name", "") or getattr(loss, "__name__", type(loss).__name__))
            for loss in self.losses.values()
        }
        return " and ".join(
            [*sorted(names), *(["the original's answers"] if self.teacher_share else [])]
        )


def lessons_of(
    model: Any,
    samples: Samples,
    signature: Signature,
    settings: FineTuning,
    *,
    teacher: Any = None,
    compiled: Any = None,
    temperature: float = TEMPERATURE,
) -> Lessons:
    """Return what `model` is taught by; the teacher answers all samples, once.

    Args:
        model: As of `fine_tune`, like what follows.
        samples: The train split.
        signature: The model's.
        settings: How to teach.
        teacher: What teaches it; None for nobody.
        compiled: The model whose loss is taken, where it has one.
        temperature: Of the teacher's answers about classes.

    Raises:
        SamplesError: If there is nothing to be taught by, there are too few samples, or targets don't fit the outputs.
    """
    least = max(
        _LEAST_SAMPLES, 2 * (signature.batch or 0)
    )  # a batch of one size only to learn, and one to hold out
    if len(samples) < least:
        raise SamplesError(
            f"at least {least} samples are needed to train on; there are {len(samples)}."
        )
    if teacher is None and not samples.targets:
        raise SamplesError("there is nothing to be taught by: neither targets nor a teacher.")
    answers = answers_of(model if teacher is None else teacher, samples, signature)
    targets = {
        place: np.asarray(samples.targets[name])
        for place, name in enumerate(signature.output_names)
        if name in samples.targets
    }
    kinds = tuple(kind_of(answer, targets.get(place)) for place, answer in enumerate(answers))
    own = _compiled_losses(compiled, signature)
    losses = {}
    for place, target in targets.items():
        name, answer, kind = signature.output_names[place], answers[place], kinds[place]
        refuse_targets(name, kind, target, answer)
        usual = task_loss(kind, target, answer)
        losses[place] = own[place] if _takes(own[place], target, answer) else usual
        if _tried(losses[place], target, answer) is None:
            raise SamplesError(
                f"the targets of '{name}' are of shape {target.shape} and its answers of shape {answer.shape}: "
                "there is no loss between them."
            )
    wanted = {_target(place): target for place, target in targets.items()}
    if teacher is not None:
        wanted |= {_answer(place): answer for place, answer in enumerate(answers)}
    inputs = [np.asarray(samples.inputs[name]) for name in signature.input_names]
    cut = len(samples) - held_out_of(len(samples), signature)
    first = cut % (signature.batch or 1)

    def part(chosen: slice) -> tuple[list[Any], dict[str, Any]]:
        return [array[chosen] for array in inputs], {
            name: array[chosen] for name, array in wanted.items()
        }

    share = settings.teacher_share if teacher is not None else 0.0
    spreads = tuple(map(_spread, answers))
    return Lessons(
        part(slice(first, cut)), part(slice(cut, None)), kinds, spreads, losses, share, temperature
    )  # fmt: skip


def _spread(answers: NDArray[Any]) -> float:
    """Return the variance of answers; 1 where they are one and the same number but for rounding."""
    exact = np.asarray(answers, np.float64)
    found = float(exact.var())
    return found if found > _LEAST_SPREAD * float(np.square(exact).mean()) else 1.0


def held_out_of(count: int, signature: Signature) -> int:
    """Return how many of `count` samples are held out: in whole batches where the model takes those of one size only."""
    only = signature.batch or 1
    least = min(max(int(count * _HELD_OUT), 1), _MOST_HELD_OUT)
    return math.ceil(least / only) * only


def _task(task: Any, target: Any, output: Any, own: Any) -> Any:
    loss = ops.mean(task(target, output))
    if own is None:
        return loss
    return own * loss + (1 - own) * ops.mean(task(ops.flip(target, axis=0), output))


def _target(place: int) -> str:
    return f"target_{place}"


def _answer(place: int) -> str:
    return f"answer_{place}"


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
        newer = {_answer(place): answer for place, answer in enumerate(y_pred.get("answers", ()))}
        loss = self.lessons.loss(y_pred["outputs"], {**y, **newer}, y_pred.get("own"))
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
    watch = _Watch(
        taught.student, settings, steps,
        keep_from=keep_from, is_enough=is_enough, report=report, kept=backup and backup / _BEST,
    )  # fmt: skip
    # Twice, since a process may be ended while it writes.
    also = (
        [keras.callbacks.BackupAndRestore(backup / _EPOCHS, double_checkpoint=True)]
        if backup
        else []
    )
    taught.fit(
        *lessons.taught, validation_data=lessons.held_out, validation_batch_size=only or _ANSWERED_AT_ONCE,
        batch_size=batch, epochs=settings.epochs, verbose=0, callbacks=[*callbacks, watch, *also],
    )  # fmt: skip
    watch.restore()
    hints = taught.hints
    words = [lessons.spelled(), *([hints.spelled()] if hints else [])]
    return FineTuned(
        tuple(watch.losses),
        watch.best,
        " and ".join(words),
        watch.has_diverged,
        hints.pairs if hints else (),
    )


def _compiled_losses(model: Any, signature: Signature) -> list[Any]:
    """Return the loss that each output was compiled with; None where that can't be told."""
    loss, names = getattr(model, "loss", None), signature.output_names
    if isinstance(loss, dict):  # by an output's key, where there are keys, or by its layer
        layers = getattr(model, "output_names", names)
        loss = [loss.get(name, loss.get(layer)) for name, layer in zip(names, layers, strict=True)]
    given = list(loss) if isinstance(loss, list | tuple) else [loss] * len(names)
    if len(given) != len(names):
        return [None] * len(names)
    return [keras.losses.get(one) if isinstance(one, str) else one for one in given]


def _takes(loss: Any, target: NDArray[Any], answer: NDArray[Any]) -> bool:
    """Say whether there is a loss, and it takes targets as they are written here: classes by number, or one-hot."""
    found = None if loss is None else _tried(loss, target, answer)
    return found is not None and bool(np.isfinite(found).all())


def _tried(loss: Any, target: NDArray[Any], answer: NDArray[Any]) -> NDArray[Any] | None:
    """Return the loss of two samples; None where there is none between them."""
    try:
        found = loss(ops.convert_to_tensor(target[:2]), ops.convert_to_tensor(answer[:2]))
    # Losses of anybody's own raise anything.
    except Exception:  # noqa: BLE001
        return None
    told: NDArray[Any] = ops.convert_to_numpy(found)
    return told


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
        config = own.get_config()
        if settings.learning_rate is not None:
            config["learning_rate"] = keras.optimizers.schedules.serialize(falling)
        made = type(own).from_config(config)
    if any(map(is_half, student.trainable_variables)):
        made = WholePrecision(made)
    is_scaled = any(getattr(layer, "compute_dtype", "") == "float16" for layer in _within(student))
    # Gradients of half precision vanish unless the loss is scaled.
    return keras.optimizers.LossScaleOptimizer(made) if is_scaled else made


def _within(model: Any) -> Iterator[Any]:
    """Yield the layers of a model, those of models within too."""
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _within(layer)


class _Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the best weights, ends what leads nowhere, and tells how far it is."""

    def __init__(
        self,
        model: Any,
        settings: FineTuning,
        steps: int,
        *,
        keep_from: int,
        is_enough: Callable[[], bool] | None,
        report: Report,
        kept: Path | None,
    ) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.best: int | None = None
        self.has_diverged = False
        self._least = math.inf
        self._taught, self._settings, self._steps, self._report = model, settings, steps, report
        self._keep_from, self._is_enough, self._kept = keep_from, is_enough, kept
        self._before: list[Any] = model.get_weights()
        self._weights: list[Any] | None = None
        self._started, self._begun, self._done = time.monotonic(), 0, 0
        if kept and kept.exists():
            self._go_on_from(kept)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count the steps of epochs before an interruption as done."""
        if not self._done:
            self._begun = self._done = epoch * self._steps
            self._started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Tell how far it is, and end where the loss is no number."""
        self._done += 1
        if self._done % _STEPS_A_LOOK != 1:
            return
        total = self._steps * self._settings.epochs
        each = (time.monotonic() - self._started) / (self._done - self._begun)
        left = each * max(total - self._done, 0)
        self._report(min(self._done / total, 1.0), f"training, about {left:.0f} s left")
        self._stop_if_diverged((logs or {}).get("loss", 0.0))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keep the weights where they are the best so far."""
        loss = float((logs or {}).get("val_loss", math.nan))
        self._stop_if_diverged(loss)
        if self.has_diverged:
            return
        self.losses.append(loss)
        if epoch < self._keep_from:
            return
        is_enough = bool(self._is_enough and self._is_enough())
        if is_enough or self.best is None or loss < self._least:
            self.best, self._least = epoch, loss
            self._weights = self._taught.get_weights()
            self._keep()
        if is_enough or epoch - self.best >= self._settings.patience:
            self.model.stop_training = True

    def _keep(self) -> None:
        """Write the best weights down, for what goes on after an interruption."""
        if self._kept and self._weights is not None:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            draft = self._kept.with_suffix(".draft")
            arrays = {f"weight_{place}": weight for place, weight in enumerate(self._weights)}
            told = {"best": np.asarray(self.best), "least": np.asarray(self._least)}
            with draft.open("wb") as file:
                np.savez(file, allow_pickle=False, **told, **arrays)
            draft.replace(self._kept)

    def _go_on_from(self, kept: Path) -> None:
        with np.load(kept) as found:
            self.best, self._least = int(found["best"]), float(found["least"])
            # NumPy writes down the bytes of bfloat16, and not what they are.
            self._weights = [
                found[f"weight_{place}"].view(weight.dtype)
                for place, weight in enumerate(self._before)
            ]

    def restore(self) -> None:
        """Give the model its best weights, or, where it diverged before there were any, those it came with."""
        if self._weights is not None:
            self._taught.set_weights(self._weights)
        elif self.has_diverged:
            self._taught.set_weights(self._before)

    def _stop_if_diverged(self, loss: float) -> None:
        if not math.isfinite(float(loss)):
            self.has_diverged = True
            self.model.stop_training = True
