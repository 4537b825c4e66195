"""Layers that are to be pruned: the mark that says so, and what it does while a model is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import keras

from strop.compat.tfmot.marked import warn_of_left_alone
from strop.compat.tfmot.marks import Mark, borne, find
from strop.compat.tfmot.sparsity.patterns import pattern_of
from strop.compat.tfmot.sparsity.schedules import (
    ConstantSparsity,
    PolynomialDecay,
    PruningSchedule,
    steps_of,
)
from strop.core.errors import InputError, message
from strop.train.pruning import Pruning


@final
@keras.saving.register_keras_serializable(package="strop")
class PruneLowMagnitude(Mark):
    """A weight that is to be pruned; `UpdatePruningStep` does it.

    Attributes:
        schedule: When, and how much.
        step: How many steps of training it has been through.
        is_under_way: Whether somebody counts the steps; without that, training is refused.
        has_refused: Whether that happened.
    """

    method = "get_prunable_weights"

    def __init__(
        self,
        within: Any = None,
        *,
        pruning_schedule: PruningSchedule | Mapping[str, Any],
        block_size: Sequence[int] = (1, 1),
        block_pooling_type: str = "AVG",
        sparsity_m_by_n: Sequence[int] | None = None,
        step: int = 0,
        said: float = 0.0,
        **of_mark: Any,
    ) -> None:
        super().__init__(within, **of_mark)
        self.schedule = _schedule_of(pruning_schedule)
        self.pattern = pattern_of(block_size, block_pooling_type, sparsity_m_by_n)
        self.step, self.is_under_way, self.has_refused = step, False, False
        self._said = said
        self._hook: Pruning | None = None
        self._written = {
            "block_size": list(block_size),
            "block_pooling_type": block_pooling_type,
            "sparsity_m_by_n": sparsity_m_by_n and list(sparsity_m_by_n),
        }

    def __call__(self, weights: Any) -> Any:
        """Return weights as the user's constraint has them.

        Raises:
            InputError: If nobody counts the steps.
        """
        if self.is_meant and not self.is_under_way:
            self.has_refused = True
            raise InputError(
                message(
                    "weights are trained that are to be pruned, and nothing counts the steps.",
                    "Give the callback to fit, or take the pruning off with strip_pruning(model).",
                    next_step="model.fit(..., callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])",
                )
            )
        return super().__call__(weights)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes: how far it has come, too."""
        if self._hook is not None:
            self._said = self._hook.schedule.sparsity_at(self.step - 1)
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {
            **super().get_config(),
            **self._written,
            "pruning_schedule": schedule,
            "step": self.step,
            "said": self._said,
        }

    def custom_objects(self) -> Mapping[str, Any]:
        """Return the schedule's class."""
        return {type(self.schedule).__name__: type(self.schedule)}

    def hook(self, model: Any) -> Pruning:
        """Return what prunes the weights that bear this mark; always the same, so that compiled steps stay right."""
        if self._hook is None:
            steps = steps_of(self.schedule, said=self._said, always=self.pattern.sparsity)
            self._hook = Pruning(
                model,
                steps,
                pattern=self.pattern,
                only=lambda kernel: find(kernel.variable.constraint, type(self)) is self,
            )
        return self._hook


def prunings_of(model: Any) -> list[tuple[PruneLowMagnitude, Pruning]]:
    """Return the marks that a built model bears, with what prunes; warn of weights that can't be pruned so."""
    meant = borne(model, PruneLowMagnitude)
    found = {id(mark): (mark, mark.hook(model)) for _, mark in meant}
    pruned = {id(k.variable) for _, hook in found.values() for k in hook.kernels}
    misfits = [variable for variable, _ in meant if id(variable) not in pruned]
    if misfits:
        reasons = {k: v for _, hook in found.values() for k, v in hook.left_alone.items()}
        warn_of_left_alone(reasons or {v.path: "it is not pruned" for v in misfits})
    return list(found.values())


def _schedule_of(given: PruningSchedule | Mapping[str, Any]) -> PruningSchedule:
    if isinstance(given, PruningSchedule):
        return given
    found = keras.saving.deserialize_keras_object(
        given, custom_objects={kind.__name__: kind for kind in (ConstantSparsity, PolynomialDecay)}
    )
    assert isinstance(found, PruningSchedule)  # noqa: S101 - it is what was written down
    return found
