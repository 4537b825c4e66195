"""`bench`: models timed side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from strop.api.opening import name_of, opened_model
from strop.api.working import workplace
from strop.core.errors import (
    ParameterError,
)
from strop.core.recipe import Recipe
from strop.engine.context import Bench
from strop.engine.pairs import Timing, times_in_turn, timings
from strop.search.preparing import (
    read_samples,
)
from strop.search.request import Request


def bench(
    models: Sequence[Any],
    samples: Any = None,
    *,
    batch: int = 1,
    rounds: int = 20,
    seconds: float = 0.1,
    request: Request | None = None,
) -> list[Timing]:
    """Time models side by side, round by round in turn, against the first; each in its engine, which is told nothing.

    Args:
        models: Models as for `optimize`, or folders of artifacts; those that fit the first one's inputs. One alone
            is timed too.
        samples: Inputs to time with; made up where None.
        batch: Batch size.
        rounds: How many.
        seconds: Of each model in each round.
        request: Everything else; see `Request`.

    Raises:
        InputError: If there is no model, one or the samples can't be used, or `batch` and `rounds` are too few.
        TrialError: If a model fails.
    """
    if not models:
        raise ParameterError("there is no model to time")
    if rounds < 2:  # an interval has no width in one
        raise ParameterError(f"two rounds at least are needed, not {rounds}")
    if batch < 1:
        raise ParameterError(f"the batch size must be from 1 up, not {batch}")
    asked = request or Request()
    with workplace() as (scratch, executor):
        opened = [
            opened_model(model, asked, scratch / f"model{place}", executor, as_shipped=True)
            for place, model in enumerate(models)
        ]
        place = read_samples(samples, opened[0].model, asked, scratch, executor)
        names = [name_of(model) for model in models]
        if len(set(names)) < len(names):
            names = [f"{name} ({position})" for position, name in enumerate(names, 1)]
        subjects = {
            name: (one.model, Recipe((), one.runtime, one.settings))
            for name, one in zip(names, opened, strict=True)
        }
        stand = Bench(place, place, asked.goal, asked.seed)
        figures = times_in_turn(executor, subjects, stand, batch, rounds=rounds, seconds=seconds)
    return timings(figures, names[0])
