"""Pruning for Keras models, under the names of `tfmot.sparsity.keras`."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import keras

from strop.compat.tfmot.copies import refuse_subclassed
from strop.compat.tfmot.marked import marked, scope_of, unmarked
from strop.compat.tfmot.sparsity.callbacks import PruningSummaries, UpdatePruningStep
from strop.compat.tfmot.sparsity.marking import PruneLowMagnitude
from strop.compat.tfmot.sparsity.policies import (
    PruneForLatencyOnXNNPack,
    PruningPolicy,
)
from strop.compat.tfmot.sparsity.schedules import (
    ConstantSparsity,
    PolynomialDecay,
    PruningSchedule,
)

__all__ = [
    "ConstantSparsity",
    "PolynomialDecay",
    "PrunableLayer",
    "PruneForLatencyOnXNNPack",
    "PruningPolicy",
    "PruningSchedule",
    "PruningSummaries",
    "UpdatePruningStep",
    "prune_low_magnitude",
    "prune_scope",
    "strip_pruning",
]

_HALF_AT_ONCE = ConstantSparsity(0.5, 0)


class PrunableLayer(abc.ABC):
    """For layers of one's own: says which of their weights can be pruned."""

    @abc.abstractmethod
    def get_prunable_weights(self) -> list[Any]:
        """Return the variables to prune, once the layer is built."""


def prune_low_magnitude(
    to_prune: Any,
    pruning_schedule: PruningSchedule = _HALF_AT_ONCE,
    block_size: Sequence[int] = (1, 1),
    block_pooling_type: str = "AVG",
    pruning_policy: PruningPolicy | None = None,
    sparsity_m_by_n: Sequence[int] | None = None,
    **kwargs: Any,
) -> Any:
    """Return a model or a layer whose weights of least magnitude are dropped while it is trained.

    It is trained as any, with `UpdatePruningStep` among the callbacks, and is saved and loaded as any.

    Args:
        to_prune: A Sequential or Functional model; a layer, built or not; or a list of layers.
        pruning_schedule: When, and what share; half of the weights from the first step on if it is not said.
        block_size: Weights that go together, along a kernel's last two axes.
        block_pooling_type: Whether blocks are ranked by the mean magnitude (``AVG``) or the largest (``MAX``).
        pruning_policy: Which layers of a model are pruned, and whether a model can be; None for all that can.
        sparsity_m_by_n: Zeros, and weights of a group: (2, 4) makes 2 of each 4 neighbours along the input channels
            zero. The schedule then says when, and how much on the way there.
        **kwargs: Of a layer: `input_shape` for the first in a Sequential, `name`.

    Returns:
        Another model with copies of the weights, uncompiled; or the same layer.

    Raises:
        ValueError: If it is none of these, or the arguments don't go together.
        ModelError: If a layer of the model can't be copied.
    """

    def make(within: Any, **of_mark: Any) -> PruneLowMagnitude:
        return PruneLowMagnitude(
            within,
            pruning_schedule=pruning_schedule,
            block_size=block_size,
            block_pooling_type=block_pooling_type,
            sparsity_m_by_n=sparsity_m_by_n,
            **of_mark,
        )

    if pruning_policy is None or not isinstance(to_prune, keras.Model):
        return marked(to_prune, make, PruneLowMagnitude, doing="pruned", **kwargs)
    refuse_subclassed(to_prune)
    pruning_policy.ensure_model_supports_pruning(to_prune)
    allow = pruning_policy.allow_pruning
    return marked(to_prune, make, PruneLowMagnitude, doing="pruned", is_meant=allow)


def prune_scope() -> Any:
    """Return a scope in which models that are being pruned can be loaded.

    Example:
        >>> with prune_scope():                                   # doctest: +SKIP
        ...     model = keras.models.load_model("halfway.keras")
    """
    return scope_of(PruneLowMagnitude)


def strip_pruning(model: Any) -> Any:
    """Return a model that is not to be pruned any more: another one, of the same weights, with the zeros they have.

    Raises:
        ValueError: If it is no Sequential or Functional model.
        ModelError: If one of its layers can't be copied.
    """
    return unmarked(model, PruneLowMagnitude)
