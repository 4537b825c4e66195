"""What a user asks of a search, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field

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
        command: What the report says does it again.
    """

    goal: Goal = field(default_factory=Goal)
    effort: Effort = Effort.STANDARD
    budget_seconds: float | None = None
    seed: int = 0
    options: Options = field(default_factory=Options)
    preparation: Preparation = field(default_factory=Preparation)
    runtimes: tuple[str, ...] = ()
    step_seconds: float = 600.0
    command: str = "strop.optimize(model, samples)"

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:  # what Keras takes, and NumPy's generators
            raise ParameterError(f"the seed must be from 0 to {2**32 - 1}, not {self.seed}")
