"""Pruning: weights of a live Keras model made zero, at once or while it is taught, and kept zero.

Masks stand beside the weights and not around the layers: each is a constraint of its variable, which Keras' optimizer
applies within the compiled step, right after it has changed the weights. So the model saves, loads, clones and exports
as what it is, and once training ends nothing but the zeros is left of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from strop.core.errors import ModelError, ParameterError, message
from strop.numerics.schedules import ConstantSparsity, Schedule
from strop.numerics.sparsity import (
    UNSTRUCTURED,
    Block,
    Mask,
    NOfM,
    Pattern,
    global_masks,
    random_scores,
)
from strop.train.constraints import Holding, Within
from strop.train.exclusions import Exclusion
from strop.train.kernels import Kernel, kernels_of, shares_of_zeros

TOGETHER = frozenset({"global", "layer_adaptive"})
"""Rankings of the weights of all layers against each other."""
RANKINGS = ("layer", *sorted(TOGETHER), "random")
PRUNED_FROM = 0.01
"""Of a kernel's weights, so many zeros are no chance: numbers that were drawn, or trained, hardly ever are."""


@dataclass(frozen=True)
class Pruned:
    """What pruning made of a model.

    Attributes:
        sparsity: The share of zeros in the kernels of each layer that was treated.
        left_alone: The layers with weights that were not, with the reason.
    """

    sparsity: Mapping[str, float]
    left_alone: Mapping[str, str]


def prune(
    model: Any,
    sparsity: float = 0.5,
    *,
    pattern: Pattern = UNSTRUCTURED,
    ranking: str = "layer",
    exclude: Sequence[Exclusion] = (),
    seed: int = 0,
) -> Pruned:
    """Make the least of the weights zero, in place and at once, without training.

    Args:
        model: A built `keras.Model`; it is changed.
        sparsity: The share of weights to drop, in [0, 1); N:M says it by itself.
        pattern: Which weights go together, as in `Pruning`.
        ranking: Against which others weights are ranked, as in `Pruning`.
        exclude: Layers to leave alone, as in `kernels_of`.
        seed: For a random ranking.

    Raises:
        ParameterError: If the share is outside of [0, 1), or pattern and ranking don't go together.
        ModelError: If the model is not built, or has weights that are NaN.
        UnknownNameError: If a name in `exclude` is no layer's and no class's.
    """
    try:
        schedule = ConstantSparsity(sparsity if pattern.sparsity is None else pattern.sparsity)
    except ValueError as error:
        raise ParameterError(str(error)) from error
    hook = Pruning(model, schedule, pattern=pattern, ranking=ranking, exclude=exclude, seed=seed)
    hook.complete()
    return hook.report()


def keep_zeros(model: Any, exclude: Sequence[Exclusion] = ()) -> KeptZeros:
    """Return a Keras callback that keeps each weight zero that is zero when training begins.

    Args:
        model: A built `keras.Model`, pruned before.
        exclude: Layers whose zeros may become something else, as in `kernels_of`.

    Raises:
        ModelError: If the model is not built.
        UnknownNameError: If a name in `exclude` is no layer's and no class's.
    """
    return KeptZeros(*kernels_of(model, exclude))


def keep_pruned(model: Any, others: Iterable[Kernel] = ()) -> KeptZeros:
    """Return a Keras callback that keeps the zeros of kernels that were pruned before.

    A kernel was where more of its weights are zero than come about by chance, and not all of them.

    Args:
        model: A built `keras.Model`.
        others: Kernels that somebody else sees to.

    Raises:
        ModelError: If the model is not built.
    """
    seen_to = {id(kernel.variable) for kernel in others}
    kernels, left = kernels_of(model)
    return KeptZeros(
        [
            kernel
            for kernel in kernels
            if id(kernel.variable) not in seen_to and PRUNED_FROM < _zeros(kernel) < 1
        ],
        left,
    )


def _zeros(kernel: Kernel) -> float:
    return float(np.mean(kernel.weights == 0))


class _Masking(Holding):
    """A Keras callback that has masks within the training step, from its begin to its end; see `Holding`."""

    what = "masks"

    def __init__(self, kernels: Sequence[Kernel], left_alone: Mapping[str, str]) -> None:
        self._masks = [_Mask(kernel.variable) for kernel in kernels]
        super().__init__(kernels, left_alone, self._masks)

    def report(self) -> Pruned:
        """Return the share of zeros that each layer has now, and what was left alone."""
        return Pruned(shares_of_zeros(self.kernels), self.left_alone)


@final
class KeptZeros(_Masking):
    """Keeps each weight zero that is zero when training begins; see `keep_zeros`."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Take the zeros that there are for masks, and put these into the step."""
        for kernel, mask in zip(self.kernels, self._masks, strict=True):
            mask.put(kernel.weights != 0)
        super().on_train_begin(logs)


@final
class Pruning(_Masking):
    """A Keras callback that prunes a model while it is trained.

    What is dropped stays zero; of what is left the least goes next, as the schedule says. Steps go on counting where
    one object serves several calls of `fit`. Give it after the callbacks that restore weights (`EarlyStopping`), or
    call `complete` after training.

    Attributes:
        kernels: What is pruned.
        left_alone: The layers with weights that are not, with the reason.
        schedule: What share is dropped at which step.
        pattern: Which weights go together.

    Example:
        >>> pruning = Pruning(model, PolynomialDecay(0.0, 0.8, begin=0, end=1000))  # doctest: +SKIP
        >>> model.fit(x, y, callbacks=[pruning])                                    # doctest: +SKIP
        >>> pruning.report().sparsity                                               # doctest: +SKIP
        {'conv2d': 0.8, 'dense': 0.8}
    """

    def __init__(
        self,
        model: Any,
        schedule: Schedule,
        *,
        pattern: Pattern = UNSTRUCTURED,
        ranking: str = "layer",
        exclude: Sequence[Exclusion] = (),
        only: Callable[[Kernel], bool] | None = None,
        seed: int = 0,
    ) -> None:
        """Find what to prune; nothing is changed before training begins.

        Args:
            model: A built `keras.Model`, the one trained or one within it.
            schedule: What share to drop at which step; for N:M it must end at what that comes to, or above.
            pattern: Which weights go together: blocks over a kernel's last axes as Keras stores it, or groups N:M
                along `Kernel.group_axis`.
            ranking: ``layer`` ranks magnitudes within each kernel, ``global`` those of all kernels together;
                ``layer_adaptive`` all together too, by their share of their own kernel's squares (see
                `strop.numerics.sparsity.layer_adaptive_scores`); ``random`` drops any, as a measure of what ranking is
                worth.
            exclude: Layers to leave alone, as in `kernels_of`.
            only: Which of the kernels found are meant; None for all of them.
            seed: For a random ranking.

        Raises:
            ParameterError: If there is no such ranking, or schedule, pattern and ranking don't go together.
            ModelError: If the model is not built.
            UnknownNameError: If a name in `exclude` is no layer's and no class's.
        """
        mistakes = _mistakes(schedule, pattern, ranking)
        if mistakes:
            raise ParameterError("\n".join(mistakes))
        kernels, left = kernels_of(model, exclude)
        meant = [kernel for kernel in kernels if only is None or only(kernel)]
        super().__init__(*_fitting(pattern, meant, left))
        self.schedule, self.pattern = schedule, pattern
        self._ranking, self._seed = ranking, seed
        self._sparsity: float | None = (
            None  # as of the last choice of masks; None before any in this training
        )
        self._next = self._epoch_began = 0  # steps, over all trainings

    @property
    def is_complete(self) -> bool:
        """Whether as much has been dropped as the schedule ever asks for."""
        return self._sparsity is not None and self._sparsity >= self.schedule.target

    def on_train_begin(self, logs: Any = None) -> None:
        """Put the masks into the step."""
        self._sparsity = None
        super().on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Find out which step it is, where training goes on from an earlier process too."""
        steps = (self.params or {}).get("steps") or 0
        self._epoch_began = max(self._next, epoch * steps)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Count the step, and choose masks anew where the schedule says so."""
        self.advance_to(self._epoch_began + batch)

    def advance_to(self, step: int) -> None:
        """Have `step` about to begin, counted from 0 over all trainings, and choose masks anew where the schedule says so.

        For training loops of one's own, after `on_train_begin`.
        """
        # With several steps in one execution, the one that was due may lie between two calls.
        is_due = any(map(self.schedule.is_update, range(self._next, step + 1)))
        self._next = step + 1
        if is_due or self._sparsity is None:
            self.update(step)

    def update(self, step: int) -> None:
        """Choose masks for the share that the schedule has at `step`."""
        sparsity = self.schedule.sparsity_at(step)
        # What was dropped is zero and ranks last, so the same share would come to the same masks again.
        if sparsity == self._sparsity:
            return
        if sparsity or self._sparsity:
            self._drop(sparsity)
        else:
            self._sparsity = sparsity

    def complete(self) -> None:
        """Drop at once what the schedule drops by its end, where training stopped before or went back to weights of before.

        Raises:
            ModelError: If there are weights that are NaN.
        """
        if not self._drop(self.schedule.target):
            raise ModelError(
                message(
                    "some of the model's weights are NaN, so that they can't be ranked.",
                    "Its training may have diverged; start from weights of before that.",
                )
            )

    def _drop(self, sparsity: float) -> bool:
        """Choose masks and apply them; leave all as it is, and say so, where weights are NaN."""
        weights = [kernel.weights for kernel in self.kernels]
        # In training, whoever watches the loss ends it.
        if any(np.isnan(array.astype(np.float32)).any() for array in weights):
            return False
        for mask, kept in zip(self._masks, self._chosen(weights, sparsity), strict=True):
            mask.put(kept)
            mask.settle()
        self._sparsity = sparsity
        return True

    def _chosen(self, weights: Sequence[NDArray[Any]], sparsity: float) -> list[Mask]:
        if self._ranking in TOGETHER and isinstance(self.pattern, Block):
            adaptive = self._ranking == "layer_adaptive"
            return global_masks(weights, sparsity, self.pattern.shape, layer_adaptive=adaptive)
        if self._ranking == "random":
            # By their place too: layers of one shape are not to have one mask.
            weights = [random_scores(w.shape, (self._seed, n)) for n, w in enumerate(weights)]
        return [
            self.pattern.mask(array, sparsity, kernel.group_axis)
            for kernel, array in zip(self.kernels, weights, strict=True)
        ]


class _Mask:
    """A variable's zeros.

    Attributes:
        variable: The variable.
    """

    def __init__(self, variable: Any) -> None:
        self.variable = variable
        # A variable itself, so that the compiled step sees it change.
        self._kept = keras.Variable(
            np.ones(variable.shape, np.bool_), trainable=False, dtype="bool", name="mask"
        )

    def put(self, kept: Mask) -> None:
        """Have zeros where `kept` is False, from the next step on."""
        self._kept.assign(kept)

    def constrain(self, weights: Any, within: Within) -> Any:
        """Return weights with the zeros."""
        # The user's constraint is given them (a norm is to be that of what is left), and may not take them away.
        return self._zeroed(within(self._zeroed(weights)))

    def settle(self) -> None:
        """Make the variable zero where it has to be."""
        self.variable.assign(self._zeroed(self.variable))

    def _zeroed(self, weights: Any) -> Any:
        # Chosen and not multiplied: a product with 0 leaves −0.0, which does not compress with 0.0, and NaN.
        return ops.where(self._kept, weights, ops.zeros((), weights.dtype))


def _mistakes(schedule: Schedule, pattern: Pattern, ranking: str) -> list[str]:
    found = []
    if ranking not in RANKINGS:
        found.append(f"ranking must be one of {', '.join(map(repr, RANKINGS))}, not {ranking!r}")
    if isinstance(pattern, NOfM):
        if ranking in TOGETHER:
            found.append(
                f"a {ranking} ranking has no say in {pattern}: as many weights go in every group"
            )
        if schedule.target < pattern.sparsity:
            found.append(
                f"the schedule ends at a sparsity of {schedule.target:g}, and {pattern} comes to {pattern.sparsity:g}"
            )
    return found


def _fitting(
    pattern: Pattern, kernels: Sequence[Kernel], left_alone: Mapping[str, str]
) -> tuple[list[Kernel], dict[str, str]]:
    """Return the kernels that a pattern fits, and the layers left alone, those with others among them."""
    found, left = [], dict(left_alone)
    for kernel in kernels:
        misfit = pattern.misfit(tuple(kernel.variable.shape), kernel.group_axis)
        if misfit:
            left[kernel.layer] = f"{kernel.variable.name}: {misfit}"
        else:
            found.append(kernel)
    return found, left
