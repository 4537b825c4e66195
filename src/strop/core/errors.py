"""Every error that strop raises on purpose.

::

    StropError                      what is wrong, what would be right, the next step
    ├── InputError                  something the user gave can't be used
    │   ├── ModelError              the model file or object
    │   │   └── UnsafeModelError    the model would run code or touch files; names the flag that allows it
    │   ├── SamplesError            the samples: shapes, dtypes, names, NaN, lengths
    │   ├── RecipeError             a recipe: every mistake in it at once
    │   ├── ParameterError          the value of an option or a field
    │   ├── MetricError             a metric failed or gave something that is not a number
    │   ├── UnknownNameError        no plug-in of that name; offers the nearest
    │   └── OutputError             the output folder: holds something else, can't be written, disk full
    ├── MissingDependencyError      a package that is not installed; carries the install line
    ├── TrialError                  one trial failed; the study goes on
    │   ├── ConversionError         a converter refused, or changed the answers
    │   ├── QuantizationError       a quantizer refused
    │   ├── ExecutionError          an engine could not open or run a model
    │   ├── DivergedError           training ended in a loss that is no number, with nothing worth keeping
    │   ├── JudgingError            the metric fails on a candidate's answers, and not on the original's
    │   ├── WorkerDiedError         the process that carried out a step ended by itself
    │   ├── StepTimeoutError        a step ran past its time limit
    │   └── SubjectError            one of several measured side by side failed
    ├── GoalError                   the goal can't be met; carries the best so far
    ├── NothingWorkedError          every trial failed, or an engine that was asked for can't run
    └── Cancelled                   the budget is used up; the best so far is kept

The first line of a message says what is wrong, with the value and the place; the second what would be
right; a third, indented, is the next step to copy. The CLI prints the text and exits with `exit_code`.
Anything that reaches the user and is not a `StropError` is a bug of ours and keeps its traceback, but
for what the operating system refuses (`OSError`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = [
    "Cancelled",
    "ConversionError",
    "DivergedError",
    "ExecutionError",
    "GoalError",
    "InputError",
    "JudgingError",
    "MetricError",
    "MissingDependencyError",
    "ModelError",
    "NothingWorkedError",
    "OutputError",
    "ParameterError",
    "QuantizationError",
    "RecipeError",
    "SamplesError",
    "StepTimeoutError",
    "StropError",
    "SubjectError",
    "TrialError",
    "UnknownNameError",
    "UnsafeModelError",
    "WorkerDiedError",
    "message",
]


def message(wrong: str, right: str = "", *, next_step: str = "") -> str:
    """Return the three-part text of an error: what is wrong, what would be right, what to do.

    Example:
        >>> print(message("the file 'm.keras' is empty.", "A .keras file is a zip archive.",
        ...               next_step="strop inspect other.keras"))
        the file 'm.keras' is empty.
        A .keras file is a zip archive.
          strop inspect other.keras
    """
    lines = [
        wrong,
        *([right] if right else []),
        *(f"  {line}" for line in next_step.splitlines()),
    ]
    return "\n".join(lines)


class StropError(Exception):
    """Root of all errors that strop raises on purpose."""

    exit_code = 2

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders. Pickle would call the class with `args`, which are the text
        # and not what the subclasses' constructors take; so the text and the facts travel instead.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(
    cls: type[StropError], args: tuple[object, ...], facts: dict[str, object]
) -> StropError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(facts)
    return error


class InputError(StropError):
    """Something the user gave can't be used."""


class ModelError(InputError):
    """A model file or object that can't be read, or isn't what its name says."""


class UnsafeModelError(ModelError):
    """A model that would run code or touch files when loaded.

    Attributes:
        allow: The word to give to `--allow` to load it all the same.
    """

    def __init__(self, text: str, *, allow: str) -> None:
        super().__init__(text)
        self.allow = allow


class SamplesError(InputError):
    """Samples that don't fit the model, or can't be read."""


class RecipeError(InputError):
    """A recipe that can't be carried out.

    Attributes:
        mistakes: All of them, a line each.
    """

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


class ParameterError(InputError):
    """An option or field whose value is outside of what it takes."""


class MetricError(InputError):
    """A metric failed on the original's answers, or gave something that is not a finite number."""


class UnknownNameError(InputError):
    """A name that no plug-in has.

    Attributes:
        name: What was asked for.
        known: What there is.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(sorted(known))
        near = difflib.get_close_matches(name, self.known, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        listing = ", ".join(self.known) or "none"
        super().__init__(f"there is no {kind} called '{name}'.{hint}\n  Known: {listing}.")


class OutputError(InputError):
    """An output folder that can't be used: it holds something else, is read-only, or the disk is full."""


class MissingDependencyError(StropError):
    """A package that is needed and not installed.

    Attributes:
        package: Its name on PyPI.
        install: The line that installs it.
    """

    exit_code = 3

    def __init__(self, what: str, package: str, install: str | None = None) -> None:
        self.package = package
        self.install = install or f"pip install {package}"
        super().__init__(
            f"{what} needs the package '{package}', which is not installed.\n  {self.install}"
        )


class TrialError(StropError):
    """One trial failed. The study records the reason and goes on."""

    exit_code = 3


class ConversionError(TrialError):
    """A converter refused the model, or what it made answers differently."""


class QuantizationError(TrialError):
    """A quantizer refused the model."""


class ExecutionError(TrialError):
    """An engine could not open the model, or failed while running it."""


class DivergedError(TrialError):
    """Training ended in a loss that is no number before there were any weights worth keeping."""

    exit_code = 1


class JudgingError(TrialError):
    """The metric gave the original's answers a figure, and fails on the candidate's."""


class WorkerDiedError(TrialError):
    """The process that carried out a step ended by itself (crash, abort, out of memory)."""


class StepTimeoutError(TrialError):
    """A step ran past its time limit and was ended."""


class SubjectError(TrialError):
    """One of several that are measured side by side could not be opened, or failed.

    Attributes:
        subject: Its name.
    """

    def __init__(self, subject: str, reason: str) -> None:
        super().__init__(f"{subject}: {reason}")
        self.subject = subject
        self.reason = reason


class GoalError(StropError):
    """No candidate met the goal. What came nearest is kept and named."""

    exit_code = 1


class NothingWorkedError(StropError):
    """Every trial failed, or an engine that was asked for could not run."""

    exit_code = 3


class Cancelled(StropError):  # noqa: N818 - an interruption asked for is no error of anybody's
    """The user interrupted. What was found so far is kept."""

    exit_code = 130
