"""Copies of models, with the weights and the marks of the ones they are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from strop.compat.tfmot.marks import custom_objects
from strop.core.errors import ModelError, message
from strop.graph.keras_layers import layers_of


def copied(model: Any, layer_for: Callable[[Any], Any] | None = None) -> Any:
    """Return a model of other layers with the same weights, uncompiled.

    Layers without weights that can't be made anew, such as a Lambda, are shared.

    Args:
        model: A Functional or Sequential model, built or not.
        layer_for: Returns what is to stand for a layer, of the same weights; None for one made of its config.

    Raises:
        ValueError: If the model is of a class of its own.
        ModelError: If one of its layers can't be made anew.
    """
    refuse_subclassed(model)
    with uncompiled(model), keras.saving.custom_object_scope(custom_objects(model)):
        made = keras.models.clone_model(model, clone_function=layer_for or remade, recursive=True)
    if model.built:
        made.set_weights(model.get_weights())
    return made


def remade(layer: Any) -> Any:
    """Return a layer of the same config, without weights yet.

    Raises:
        ModelError: If its class doesn't take its config.
    """
    try:
        return type(layer).from_config(layer.get_config())
    # Layers of other people's classes are made anew here, by their own code.
    except Exception as error:
        if not layer.weights:
            return layer
        raise ModelError(
            message(
                f"the layer '{layer.name}' can't be copied: {str(error).strip().splitlines()[0]}",
                "A layer of a class of your own needs a get_config that its constructor takes.",
            )
        ) from error


def refuse_subclassed(model: Any) -> None:
    """Refuse a model whose layers can't be told from its code.

    Raises:
        ValueError: If it is neither Functional nor Sequential.
    """
    if not isinstance(model, keras.Model) or not isinstance(
        model, keras.Sequential | keras.Function
    ):
        kind = type(model).__name__
        raise ValueError(
            message(
                f"expected a Sequential or a Functional keras.Model, got a '{kind}'.",
                "A subclassed model's layers can be marked one by one.",
            )
        )


@contextmanager
def uncompiled(model: Any) -> Iterator[None]:
    """Have a model without its loss for a while, which cloning would try to clone too."""
    compiled = [part for part in layers_of(model) if getattr(part, "compiled", False)]
    for part in compiled:
        part.compiled = False
    try:
        yield
    finally:
        for part in compiled:
            part.compiled = True
