"""Figures in JSON, which knows none that is not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_WORDS = {math.inf: "Infinity", -math.inf: "-Infinity"}


def spelled(value: Any) -> Any:
    """Return plain values with every figure that is not finite as the word that `float` takes back.

    Python's own JSON writes such figures bare, which no other reader takes.

    Example:
        >>> spelled({"sqnr_db": float("inf"), "drops": (0.5, float("nan"))})
        {'sqnr_db': 'Infinity', 'drops': [0.5, 'NaN']}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return _WORDS.get(value, "NaN")
    if isinstance(value, Mapping):
        return {key: spelled(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [spelled(inner) for inner in value]
    return value


def figure(value: Any) -> Any:
    """Return a figure that `spelled` may have written as a word; anything but such a word as it is.

    Example:
        >>> figure("-Infinity"), figure(3), figure(None)
        (-inf, 3, None)
    """
    return float(value) if value in ("Infinity", "-Infinity", "NaN") else value
