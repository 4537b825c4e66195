"""What a user asks of a search, as one value."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from strop.core.contracts import Effort
from strop.core.errors import ParameterError
from strop.core.evaluation import Goal
from strop.data.raw import Preparation
from strop.graph.reading import Options


@dataclass(frozen=True)
class Request:
    """All that `optimize` is asked, as plain values; what it defaults to.

    Attributes:
        goal: What to minimize under which limits.
        effort: ``quick``, ``standard`` or ``thorough``.
        budget_seconds: After which the search ends with the best so far; None for no limit.
        seed: For every random choice.
        options: What is said about the source.
        preparation: What is done to inputs.
        runtimes: The only runtimes to consider; empty for all that are installed.
        step_seconds: After which one conversion or evaluation is ended.
        command: What the report says does it again; empty for the call in Python.
    """

    goal: Goal = field(default_factory=Goal)
    effort: Effort = Effort.STANDARD
    budget_seconds: float | None = None
    seed: int = 0
    options: Options = field(default_factory=Options)
    preparation: Preparation = field(default_factory=Preparation)
    runtimes: tuple[str, ...] = ()
    step_seconds: float = 600.0
    command: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "effort", Effort(self.effort))
        if not 0 <= self.seed < 2**32:  # what Keras takes, and NumPy's generators
            raise ParameterError(f"the seed must be from 0 to {2**32 - 1}, not {self.seed}")


def with_command(
    asked: Request, function: Callable[..., object], given: Mapping[str, object]
) -> Request:
    """Return `asked` with the command that does it again, where it names none."""
    return replace(asked, command=asked.command or spelled_call(function, given))


def spelled_call(function: Callable[..., object], given: Mapping[str, object]) -> str:
    """Return the line of Python that calls a public function again.

    Args:
        function: The function.
        given: All its arguments by name; defaults are left out, and what has no spelling (a model in memory,
            arrays) is written as its name.
    """
    parts = []
    for parameter in inspect.signature(function).parameters.values():
        value = given[parameter.name]
        if parameter.kind is parameter.KEYWORD_ONLY:
            if value != parameter.default and not callable(value):  # who listens changes nothing
                parts.append(f"{parameter.name}={_spelled(value, parameter.name)}")
        elif value is not parameter.default:
            parts.append(_spelled(value, parameter.name))
    return f"strop.{function.__name__}({', '.join(parts)})"


def _spelled(value: Any, name: str) -> str:
    if isinstance(value, Path | Effort):
        return repr(str(value))
    if isinstance(value, Request | Goal | Options | Preparation):
        told = [
            f"{of.name}={_spelled(getattr(value, of.name), of.name)}"
            for of in fields(value)
            if getattr(value, of.name) != _default(of)
        ]
        return f"strop.{type(value).__name__}({', '.join(told)})"
    is_plain = value is None or isinstance(value, str | int | float | tuple | frozenset | dict)
    return repr(value) if is_plain else name


def _default(of: Field[Any]) -> object:
    return of.default_factory() if of.default_factory is not MISSING else of.default
