"""What the weights of a live model are held to, within the compiled step of its training and until that ends.

A constraint of a variable is what Keras' optimizer applies within the step, right after it has changed the weights. What
holds a variable is put around the constraint that it has; several may, each around the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras

from strop.core.errors import InputError, message
from strop.train.kernels import Kernel

Within = Callable[[Any], Any]
"""The constraint that a variable has of its own, of weights that were just changed."""


class Holder(Protocol):
    """What a kernel's weights are held to."""

    @property
    def variable(self) -> Any:
        """The variable."""

    def constrain(self, weights: Any, within: Within) -> Any:
        """Return what the optimizer made of the weights as they are to be, within the compiled step."""

    def settle(self) -> None:
        """Have the weights as they are to be, where something but the training step has set them."""


class Held(keras.constraints.Constraint):  # type: ignore[misc]
    """A constraint around the one that a variable has, until it is released: then it does nothing more than that one.

    A released one may have to stay, where another was put around it meanwhile; so each time takes one of its own.

    Attributes:
        within: The constraint that it is around; None for none.
    """

    def __init__(self, holder: Holder) -> None:
        """Put it around the variable's constraint."""
        self.within = _first_held(holder.variable.constraint)
        self.is_held = True
        self._holder = holder
        holder.variable.constraint = self

    def __call__(self, weights: Any) -> Any:
        """Return weights as the holder has them, or as the constraint within has them alone."""
        if not self.is_held:
            return self._given(weights)
        return self._holder.constrain(weights, self._given)

    def release(self) -> None:
        """Give the variable back its constraint, or the first around it that is held."""
        self.is_held = False
        variable = self._holder.variable
        variable.constraint = _first_held(variable.constraint)

    def _given(self, weights: Any) -> Any:
        return weights if self.within is None else self.within(weights)


def _first_held(constraint: Any) -> Any:
    while isinstance(constraint, Held) and not constraint.is_held:
        constraint = constraint.within
    return constraint


class Holding(keras.callbacks.Callback):  # type: ignore[misc]
    """A Keras callback that holds kernels to something within the training step, from its begin to its end.

    Of several such callbacks on one model each holds to its own. Where `fit` is interrupted they go on doing so;
    `release` ends it.

    Attributes:
        kernels: What is held.
        left_alone: The layers with weights that are not, with the reason.
    """

    what = ""
    """What it is that they are held to, in words."""

    def __init__(
        self, kernels: Sequence[Kernel], left_alone: Mapping[str, str], holders: Sequence[Holder]
    ) -> None:
        super().__init__()
        self.kernels = tuple(kernels)
        self.left_alone = dict(left_alone)
        self._holders = tuple(holders)
        self._held: list[Held] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Put it into the step."""
        if keras.backend.backend() == "jax":
            raise InputError(
                message(
                    f"{self.what} can't be changed in a step that JAX has compiled.",
                    "They can with TensorFlow beneath Keras.",
                    next_step="export KERAS_BACKEND=tensorflow",
                )
            )
        if not self._held:
            self._held = [Held(holder) for holder in self._holders]
        self._compile_anew()

    def on_train_end(self, logs: Any = None) -> None:
        """Take it out of the step and leave it exactly, whatever averaged or restored the weights last."""
        for holder in self._holders:
            holder.settle()
        self.release()
        self._compile_anew()

    def release(self) -> None:
        """Hold to nothing any more, and give variables back the constraints that they had."""
        for held in self._held:
            held.release()
        self._held = []

    def _compile_anew(self) -> None:
        """Drop the compiled step: constraints are looked up while it is compiled, and never after."""
        if getattr(self.model, "train_function", None) is not None:
            self.model.make_train_function(force=True)
