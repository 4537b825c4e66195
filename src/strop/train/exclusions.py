"""Layers that a user wants left alone, with all that they contain."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import keras

from strop.core.errors import ParameterError, UnknownNameError, message
from strop.graph.keras_layers import Chain, name_of, prefixes

Exclusion = str | Callable[[Any], bool]
"""A layer's name, with or without those around it; a class's; a function of a layer, or where it stands (``module:name``)."""


def exclusions(
    exclude: Sequence[Exclusion], found: Sequence[Chain]
) -> Callable[[Chain], str | None]:
    """Return the function that says why a layer is excluded, if it is."""
    names = {e for e in exclude if isinstance(e, str) and ":" not in e}
    functions = [e if callable(e) else _function(e) for e in exclude if callable(e) or ":" in e]
    known = {name for chain in found for name in (chain[-1].name, name_of(chain), _class(chain))}
    for name in names:
        # A class that this model has no layer of is no slip: recipes serve many models.
        if name not in known and not hasattr(keras.layers, name):
            raise UnknownNameError("layer", name, known)

    def reason(chain: Chain) -> str | None:
        for place in prefixes(chain):
            for name in (place[-1].name, name_of(place), _class(place)):
                if name in names:
                    return f"excluded, as '{name}'"
            for function in functions:
                if function(place[-1]):
                    return f"excluded by '{getattr(function, '__name__', function)}'"
        return None

    return reason


def _class(chain: Chain) -> str:
    return type(chain[-1]).__name__


def _function(place: str) -> Callable[[Any], bool]:
    """Return the function that stands at ``module:name``."""
    module, _, name = place.partition(":")
    try:
        found: Callable[[Any], bool] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ParameterError(
            message(
                f"there is no function at '{place}': {error}.",
                "A function that says which layers to leave alone is written as module:name.",
            )
        ) from error
    return found
