"""Opening what a user names: an artifact in its runtime, any model in its own engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from strop.core.predictor import Predictor
from strop.core.recipe import Recipe
from strop.engine.context import baseline_recipe
from strop.engine.executors.local import LocalExecutor
from strop.engine.verification import Opened
from strop.report.artifact import (
    CERTIFICATE,
    model_of,
    open_artifact,
    read_certificate,
)
from strop.search.preparing import (
    read_source,
)
from strop.search.request import Request


def load(folder: str | Path) -> Predictor:
    """Return the artifact in `folder` opened in its runtime, under the original's names.

    Args:
        folder: What `optimize` or `apply` wrote (``model-strop/best``).

    Raises:
        ModelError: If it is no artifact, or its files no longer match its certificate.
        MissingDependencyError: If its engine is not installed.
    """
    return open_artifact(Path(folder))


def opened_model(
    model: Any, asked: Request, workspace: Path, executor: LocalExecutor, *, as_shipped: bool
) -> Opened:
    """Return a model in its own engine; an artifact as its certificate says.

    Args:
        model: As for `optimize`, or the folder of an artifact.
        asked: What is said about it.
        workspace: An empty folder.
        executor: Where it is read.
        as_shipped: Whether the engine is told nothing, as its owner runs it today; else it computes as exactly as the
            model says.
    """
    if isinstance(model, str | Path) and (Path(model) / CERTIFICATE).exists():
        return opened_artifact(Path(model))
    source, _ = read_source(model, asked, workspace, executor)
    recipe = baseline_recipe(source.form)
    return Opened(source, recipe.runtime, recipe.settings if as_shipped else {})


def opened_artifact(folder: Path) -> Opened:
    """Return an artifact as its certificate says."""
    certificate = read_certificate(folder)
    recipe = Recipe.from_json(certificate["recipe"])
    return Opened(model_of(folder, certificate), recipe.runtime, recipe.settings)


def name_of(model: Any) -> str:
    """Return what to call a model: its path, or the name of one in memory."""
    return str(model) if isinstance(model, str | Path) else str(getattr(model, "name", "model"))
