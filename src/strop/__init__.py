"""strop: the fastest or smallest model that still gives the right answers, measured on your machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Goal",
    "Options",
    "Predictor",
    "Preparation",
    "Recipe",
    "Request",
    "Result",
    "StropError",
    "apply",
    "bench",
    "cluster",
    "distill",
    "factorize",
    "inspect",
    "load",
    "optimize",
    "prune",
    "quantize",
    "simplify",
    "tensorboard",
    "verify",
]

if TYPE_CHECKING:
    from strop.api import (
        Request,
        Result,
        apply,
        bench,
        cluster,
        distill,
        factorize,
        inspect,
        load,
        optimize,
        prune,
        quantize,
        simplify,
        tensorboard,
        verify,
    )
    from strop.core.errors import StropError
    from strop.core.evaluation import Goal
    from strop.core.predictor import Predictor
    from strop.core.recipe import Recipe
    from strop.data.raw import Preparation
    from strop.graph.reading import Options

_HOMES = {
    "Goal": "strop.core.evaluation",
    "Options": "strop.graph.reading",
    "Predictor": "strop.core.predictor",
    "Preparation": "strop.data.raw",
    "Recipe": "strop.core.recipe",
    "StropError": "strop.core.errors",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that `import strop` costs next to nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'strop' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES.get(name, "strop.api")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
