"""Models and layers that bear a mark: made, loaded again, and rid of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import keras

from strop.compat.tfmot.copies import copied
from strop.compat.tfmot.marks import Mark, mark_layer, put, take_off
from strop.graph.keras_layers import plain_layers
from strop.train.kernels import kernels_of


def marked(
    given: Any,
    make: Callable[..., Mark],
    kind: type[Mark],
    *,
    doing: str,
    is_meant: Callable[[Any], bool] = lambda layer: True,
    **arguments: Any,
) -> Any:
    """Return a model or a layer whose kernels bear a mark.

    Args:
        given: A Sequential or Functional model; a layer, built or not; or a list of layers.
        make: As of `strop.compat.tfmot.marks.put`.
        kind: The class of what `make` returns.
        doing: What is done to the layers, for who reads which ones it is not done to.
        is_meant: Which of a model's layers are marked.
        **arguments: Of layers, as of `strop.compat.tfmot.marks.with_arguments`.

    Returns:
        Another model with copies of the weights, uncompiled; or the same layers.

    Raises:
        ValueError: If it is none of these, or `make` makes no mark.
        ModelError: If a layer of the model can't be copied.
    """
    make(None)  # what can't be is refused before anything is copied
    if isinstance(given, list):
        return [mark_layer(layer, make, kind, **arguments) for layer in given]
    if not isinstance(given, keras.Model):
        return mark_layer(given, make, kind, **arguments)
    made = copied(given)
    for layer in plain_layers(made):
        if is_meant(layer):
            put(layer, make, kind)
    _warn_of_unknown(made, doing)
    return made


def scope_of(kind: type[Mark]) -> AbstractContextManager[Any]:
    """Return a scope in which what bears marks of a kind can be loaded."""
    scope: AbstractContextManager[Any] = keras.saving.custom_object_scope({kind.__name__: kind})
    return scope


def unmarked(
    model: Any, kind: type[Mark], before: Callable[[Any], None] = lambda made: None
) -> Any:
    """Return another model of the same weights without marks of a kind.

    Args:
        model: A Sequential or Functional model.
        kind: The marks' class.
        before: Called with the other model, which bears the marks still.

    Raises:
        ValueError: If it is no Sequential or Functional model.
        ModelError: If one of its layers can't be copied.
    """
    made = copied(model)
    before(made)
    take_off(made, kind)
    return made


def warn_of_left_alone(left_alone: Mapping[str, str], doing: str = "pruned") -> None:
    """Say which layers are not treated, and why."""
    if left_alone:
        lines = "".join(f"\n  {name}: {reason}" for name, reason in left_alone.items())
        warnings.warn(f"these layers are not {doing}:{lines}", stacklevel=3)


def _warn_of_unknown(model: Any, doing: str) -> None:
    """Say which layers of a built model are of classes whose kernels are not known, or frozen."""
    if model.built:
        warn_of_left_alone(kernels_of(model)[1], doing)
