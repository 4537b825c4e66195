"""`inspect`: what a model is, and who can run it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.core.contracts import Effort
from strop.core.errors import (
    WorkerDiedError,
)
from strop.core.model import Model
from strop.engine.executors.local import LocalExecutor
from strop.engine.lanes import of_reading
from strop.graph.describing import Description
from strop.search.preparing import (
    read_source,
    unreadable,
)
from strop.search.request import Request
from strop.search.space import Space


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        model: The model as it was read.
        description: Operations, parameters, multiply-accumulates.
        engines: For each runtime, the conversions that lead to it; None where none does, with the reason beside.
    """

    model: Model
    description: Description
    engines: dict[str, str]


def inspect(model: Any, *, request: Request | None = None) -> Inspection:
    """Return what a model is and how each engine can be reached from it.

    Args:
        model: As for `optimize`.
        request: What is said about the source; see `Request`.

    Raises:
        ModelError: If it can't be read.
    """
    asked = request or Request()
    with (
        tempfile.TemporaryDirectory(prefix="strop-") as scratch,
        LocalExecutor((str(Path.cwd()),)) as executor,
    ):
        source, _ = read_source(model, asked, Path(scratch), executor)
        try:
            description = executor.call(
                of_reading(source.form),
                "strop.graph.describing:describe",
                source,
                timeout_seconds=asked.step_seconds,
            )
        except WorkerDiedError as error:
            raise unreadable(source.path, error) from None
    space = Space(source.form, Effort.QUICK, {"cores": 1, "batch": asked.goal.batch})
    return Inspection(source, description, space.reach())
