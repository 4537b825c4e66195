"""Recurrent Keras layers: found, and written out step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from strop.graph.keras_layers import layers_of


def recurrent_layers(model: Any) -> list[Any]:
    """Return the layers that loop over time, those within other layers and models among them."""
    return [layer for layer in layers_of(model) if hasattr(layer, "unroll")]


def has_recurrent_layers(path: Path) -> bool:
    """Say whether the Keras file at `path` has layers that loop over time, by what it says of them; nothing is loaded."""
    from strop.graph.keras_files import configuration, parts

    inner = (part.get("config") for part in parts(configuration(path)))
    return any(isinstance(config, dict) and "unroll" in config for config in inner)


def unroll(model: Any) -> None:
    """Make each recurrent layer of `model` write its steps out one by one when it is next traced, in place.

    Before:  while step < steps: h = cell(x[step], h)
    After:   h1 = cell(x[0], h0); h2 = cell(x[1], h1); …

    Weights stay where they are. The number of steps must be known.
    """
    for layer in recurrent_layers(model):
        layer.unroll = True
