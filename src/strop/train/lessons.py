"""Lessons: samples with all that a model is taught by, some of them held out to choose its weights by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from strop.core.errors import SamplesError
from strop.core.samples import Samples
from strop.core.signature import Signature
from strop.graph.keras_models import arranged, outputs_of
from strop.train.losses import (
    LEAST_SPREAD,
    TEMPERATURE,
    Kind,
    distillation_loss,
    kind_of,
    refuse_targets,
    task_loss,
)

ANSWERED_AT_ONCE = 256
"""Samples a call where nothing is taught."""
_HELD_OUT, _MOST_HELD_OUT = 0.1, 2000
_LEAST_SAMPLES = 8


@dataclass(frozen=True)
class Lessons:
    """Samples with all that a model is taught by, those held out apart.

    Attributes:
        taught: Inputs, and what is wanted of the outputs: targets and the teacher's answers.
        held_out: The same of the others.
        kinds: What each output's numbers are, by its place.
        spreads: The variance of what the teacher answers, an output each.
        losses: The task's, by the place of the outputs that have targets.
        weights: What each output counts in the loss.
        teacher_share: Of the loss, where there are both; 0 without a teacher.
        temperature: Of the teacher's answers about classes, as in `strop.train.losses.distillation_loss`.
    """

    taught: tuple[list[Any], dict[str, Any]]
    held_out: tuple[list[Any], dict[str, Any]]
    kinds: tuple[Kind, ...]
    spreads: tuple[float, ...]
    losses: Mapping[int, Any]
    weights: tuple[float, ...]
    teacher_share: float
    temperature: float = TEMPERATURE

    def loss(
        self,
        outputs: Sequence[Any],
        wanted: Mapping[str, Any],
        own: Any = None,
        answers: Sequence[Any] = (),
    ) -> Any:
        """Return the loss of a batch: of each output by its target, by its teacher, or by both.

        Args:
            outputs: The model's, in the signature's order.
            wanted: Targets and the teacher's answers.
            own: The share of each sample in what it became, where batches are mixed; its counterpart's targets are
                wanted as much as that has a share in it.
            answers: The teacher's to what the samples became, where batches are changed; they stand for those in `wanted`.
        """
        wanted = {**wanted, **{_answer(place): answer for place, answer in enumerate(answers)}}
        total = ops.zeros(())
        for place, output in enumerate(outputs):
            # In whole precision, whatever a layer of half of it gives.
            task, output = self.losses.get(place), ops.cast(output, "float32")
            weight = self.weights[place]
            share = 1.0 if task is None else self.teacher_share
            if task is not None:
                total += weight * (1 - share) * _task(task, wanted[_target(place)], output, own)
            if _answer(place) in wanted:
                answer = ops.cast(wanted[_answer(place)], "float32")
                total += weight * share * distillation_loss(
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
        is_taught_by_answers = any(
            _answer(place) in self.taught[1] and (self.teacher_share or place not in self.losses)
            for place in range(len(self.kinds))
        )
        return " and ".join(
            [*sorted(names), *(["the original's answers"] if is_taught_by_answers else [])]
        )


def lessons_of(
    model: Any,
    samples: Samples,
    signature: Signature,
    *,
    teacher_share: float,
    teacher: Any = None,
    compiled: Any = None,
    temperature: float = TEMPERATURE,
) -> Lessons:
    """Return what `model` is taught by; the teacher answers all samples, once.

    Args:
        model: A built `keras.Model`.
        samples: The train split; a tenth is held out.
        signature: The model's: the names of inputs and outputs.
        teacher_share: Of the loss where there are targets too; without them the teacher's is all of it.
        teacher: A `keras.Model` of the same signature; None for none.
        compiled: The `keras.Model` whose loss is taken, where it has one.
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
    losses = {
        place: _loss_between(
            signature.output_names[place], kinds[place], target, answers[place], own[place]
        )
        for place, target in targets.items()
    }
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

    share = teacher_share if teacher is not None else 0.0
    spreads = tuple(map(_spread, answers))
    return Lessons(
        part(slice(first, cut)), part(slice(cut, None)), kinds, spreads, losses,
        _compiled_weights(compiled, signature), share, temperature,
    )  # fmt: skip


def held_out_of(count: int, signature: Signature) -> int:
    """Return how many of `count` samples are held out: in whole batches where the model takes those of one size only."""
    only = signature.batch or 1
    least = min(max(int(count * _HELD_OUT), 1), _MOST_HELD_OUT)
    return math.ceil(least / only) * only


def answers_of(model: Any, samples: Samples, signature: Signature) -> list[NDArray[Any]]:
    """Return what a live model answers to samples, an array an output in the signature's order."""
    only, parts = signature.batch, []
    batches = samples.full_batches(only) if only else samples.batches(ANSWERED_AT_ONCE)
    for batch in batches:
        part = [ops.convert_to_tensor(batch[name]) for name in signature.input_names]
        given = outputs_of(model(arranged(model, part, signature), training=False), signature)
        parts.append([ops.convert_to_numpy(tensor) for tensor in given])
    return [np.concatenate(output)[: len(samples)] for output in zip(*parts, strict=True)]


def loss_weights_of(model: Any) -> Any:
    """Return the ``loss_weights`` that a Keras model was compiled with, as they were given; None for none."""
    try:
        config = model.get_compile_config()
    # It writes losses and metrics down too, and those of anybody's own raise anything.
    except Exception:  # noqa: BLE001
        return None
    return (config or {}).get("loss_weights")


def _task(task: Any, target: Any, output: Any, own: Any) -> Any:
    loss = ops.mean(task(target, output))
    if own is None:
        return loss
    return own * loss + (1 - own) * ops.mean(task(ops.flip(target, axis=0), output))


def _target(place: int) -> str:
    return f"target_{place}"


def _answer(place: int) -> str:
    return f"answer_{place}"


def _spread(answers: NDArray[Any]) -> float:
    """Return the variance of answers; 1 where they are one and the same number but for rounding."""
    exact = np.asarray(answers, np.float64)
    found = float(exact.var())
    return found if found > LEAST_SPREAD * float(np.square(exact).mean()) else 1.0


def _compiled_losses(model: Any, signature: Signature) -> list[Any]:
    """Return the loss that each output was compiled with; None where that can't be told."""
    given = _by_output(getattr(model, "loss", None), model, signature)
    return [keras.losses.get(one) if isinstance(one, str) else one for one in given]


def _compiled_weights(model: Any, signature: Signature) -> tuple[float, ...]:
    """Return what each output counts in the loss that a model was compiled with; 1 where that can't be told."""
    given = _by_output(loss_weights_of(model), model, signature)
    return tuple(1.0 if one is None else float(one) for one in given)


def _by_output(given: Any, model: Any, signature: Signature) -> list[Any]:
    """Return what was said of outputs in a list, of each in turn, or of all at once; None of each where that can't be told."""
    names = signature.output_names
    if isinstance(given, dict):  # by an output's key, where there are keys, or by its layer
        layers = getattr(model, "output_names", names)
        given = [
            given.get(name, given.get(layer)) for name, layer in zip(names, layers, strict=True)
        ]
    found = list(given) if isinstance(given, list | tuple) else [given] * len(names)
    return found if len(found) == len(names) else [None] * len(names)


def _loss_between(
    name: str, kind: Kind, target: NDArray[Any], answer: NDArray[Any], own: Any
) -> Any:
    """Return the loss of an output by its targets: its own where it takes them as they are written, else the usual one.

    Raises:
        SamplesError: If targets don't fit the answers.
    """
    refuse_targets(name, kind, target, answer)
    loss = own if _takes(own, target, answer) else task_loss(kind, target, answer)
    if _tried(loss, target, answer) is None:
        raise SamplesError(
            f"the targets of '{name}' are of shape {target.shape} and its answers of shape {answer.shape}: "
            "there is no loss between them."
        )
    return loss


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
