"""Steps in float32 for weights of half precision.

A step of a thousandth of a weight is nothing in bfloat16, whose neighbours lie up to 0.8 % apart, and Adam's decay of
0.999 is 1 in it, so that a model whose weights are wholly in it learns nothing. The optimizer works on copies in
float32, and the weights are what these round to: section 3.1 of Micikevicius et al., *Mixed Precision Training*, ICLR
2018 (arXiv:1710.03740).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

_HALVES = ("bfloat16", "float16")


def is_half(variable: Any) -> bool:
    """Say whether a variable holds numbers of half precision."""
    return keras.backend.standardize_dtype(variable.dtype) in _HALVES


class WholePrecision(keras.optimizers.Optimizer):  # type: ignore[misc]
    """An optimizer whose steps add up in float32, whatever the weights are in.

    These hold after each step: a weight of half precision is its copy, rounded; a constraint was applied to the copy
    before. What others write into weights meanwhile (masks, centroids, the best ones so far) is what the next step
    starts from.

    Args:
        within: Takes the steps.
    """

    def __init__(self, within: Any) -> None:
        super().__init__(learning_rate=0.0)
        self.within = within
        self._weights: list[Any] = []
        self._copies: list[Any] = []

    def build(self, variables: Sequence[Any]) -> None:
        """Make the copies, and what the optimizer within keeps of each."""
        self._weights = list(variables)
        self._copies = [
            self._copy_of(weight) if is_half(weight) else weight for weight in variables
        ]
        self.within.build(list(self._copies))
        super().build(variables)

    @property
    def variables(self) -> list[Any]:
        """All that it goes on from after an interruption."""
        return [*super().variables, *self.within.variables]

    @property
    def learning_rate(self) -> Any:
        """That of the optimizer within."""
        return self.within.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: Any) -> None:
        self.within.learning_rate = rate

    @property
    def iterations(self) -> Any:
        """Steps that were taken."""
        return self.within.iterations

    def scale_loss(self, loss: Any) -> Any:
        """Return the loss as the optimizer within wants it."""
        return self.within.scale_loss(loss)

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None
    ) -> None:
        """Take a step."""
        weights = self._weights if trainable_variables is None else list(trainable_variables)
        if not self.built:
            self.build(weights)
        copies = {
            id(weight): copy for weight, copy in zip(self._weights, self._copies, strict=True)
        }
        taken = [copies[id(weight)] for weight in weights]
        halves = _halves(weights, taken)
        for weight, copy in halves:
            rounded = ops.cast(copy, weight.dtype)
            copy.assign(ops.where(rounded == weight, copy, ops.cast(weight, copy.dtype)))
        wide = [
            grad if grad is None else ops.cast(grad, copy.dtype)
            for grad, copy in zip(grads, taken, strict=True)
        ]
        self.within.apply(wide, taken)
        _round(halves)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Have averages over steps, where the optimizer within keeps some, in the weights."""
        self.within.finalize_variable_values(self._copies)
        _round(_halves(self._weights, self._copies))

    def _copy_of(self, weight: Any) -> Any:
        return self.add_variable(
            weight.shape,
            initializer=lambda shape, dtype: ops.cast(weight, dtype),
            dtype="float32",
            name=f"{weight.name}_whole",
        )


def _halves(weights: Sequence[Any], copies: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return the weights that have a copy, each with it."""
    both = zip(weights, copies, strict=True)
    return [(weight, copy) for weight, copy in both if weight is not copy]


def _round(halves: Sequence[tuple[Any, Any]]) -> None:
    for weight, copy in halves:
        if weight.constraint is not None:
            copy.assign(weight.constraint(copy))
        weight.assign(ops.cast(copy, weight.dtype))
