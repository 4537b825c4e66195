"""What a study tells while it runs: plain values that a live view, a log or a program can listen to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """Something that happened; `to_json` gives it a kind."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, the event's name under ``event``."""
        return {"event": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class Note(Event):
    """A sentence for the user.

    Attributes:
        text: The sentence.
    """

    text: str


@dataclass(frozen=True)
class StageStarted(Event):
    """A stage of the study began.

    Attributes:
        name: What is done in it.
        total: How many trials it has; 0 where that is not known.
    """

    name: str
    total: int = 0


@dataclass(frozen=True)
class StepProgressed(Event):
    """A step that takes long came a little further.

    Attributes:
        name: The step's.
        share: How much of it is done, from 0 to 1.
        note: What it says of it.
    """

    name: str
    share: float
    note: str


@dataclass(frozen=True)
class TrialStarted(Event):
    """A trial began.

    Attributes:
        recipe: The recipe's line.
        done: Trials finished before it.
        seconds_left: Of the budget; None without one.
    """

    recipe: str
    done: int
    seconds_left: float | None


@dataclass(frozen=True)
class TrialFinished(Event):
    """A trial ended.

    Attributes:
        number: Its number in the study.
        recipe: The recipe's line.
        state: ``done``, ``failed``, ``declined`` or ``dropped``.
        reason: Why, for all but plain ``done``.
        objective: Value of what is minimized; None where it was not measured.
        unit: Its unit.
        gain: How many times better than the baseline; None where it was not measured.
        drop: The drop in quality; None where it was not judged.
        meets_goal: Whether it keeps the limits.
    """

    number: int
    recipe: str
    state: str
    reason: str
    objective: float | None = None
    unit: str = ""
    gain: float | None = None
    drop: float | None = None
    meets_goal: bool = False


@dataclass(frozen=True)
class StudyFinished(Event):
    """The study ended.

    Attributes:
        folder: Where its results are.
        headline: One sentence with the outcome.
        best: The winner's recipe; None where there is none.
        gain: How many times better than the baseline it is; None where there is no winner, or none raced.
        gain_interval: From where to where, at 95 %; None where it did not race.
        drop: Its drop in quality on samples not looked at before; None where it was not confirmed.
        interrupted: Whether user or budget ended the search early.
    """

    folder: str
    headline: str
    best: str | None = None
    gain: float | None = None
    gain_interval: tuple[float, float] | None = None
    drop: float | None = None
    interrupted: bool = False


Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listen to nothing."""
