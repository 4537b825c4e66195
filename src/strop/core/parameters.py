"""Parameters: the fields of a pass or a runtime, with what they may be and what is worth trying.

A pass is a frozen dataclass whose fields are its parameters. `parameter` declares one, together with the
values a recipe may give it and the values a search should try; `Configured` reads the declarations, so
that checking a recipe, printing help and building a search space need no second list.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

from strop.core.errors import ParameterError

Value = bool | int | float | str | tuple[str, ...]


@dataclass(frozen=True)
class Parameter:
    """What one field may be.

    Attributes:
        choices: The only values allowed; empty where the range or the type decides.
        low: Smallest allowed number, inclusive; None for no bound.
        high: Largest allowed number, inclusive; None for no bound.
        search: The values worth trying; empty where a search leaves the default alone.
        doc: One line for people.
        seldom: Whether other values pay so seldom, or take so long, that only a thorough search tries them.
    """

    choices: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    search: tuple[Value, ...] = ()
    doc: str = ""
    seldom: bool = False

    def worth_trying(self, known: Mapping[str, Value]) -> tuple[Value, ...]:
        """Return `search` with what names in it stand for; names that are not known, and choices, stay."""
        return tuple(
            known.get(value, value) if isinstance(value, str) else value for value in self.search
        )

    def mistake(self, value: object) -> str | None:
        """Return what is wrong with `value`, or None where it is allowed."""
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(map(repr, self.choices))}, not {value!r}"
        if isinstance(value, int | float) and not isinstance(value, bool):
            # Asked this way round, NaN fails too.
            if self.low is not None and not value >= self.low:
                return f"must be at least {self.low:g}, not {value!r}"
            if self.high is not None and not value <= self.high:
                return f"must be at most {self.high:g}, not {value!r}"
        return None


def parameter(
    default: Value,
    *,
    choices: Sequence[Value] = (),
    low: float | None = None,
    high: float | None = None,
    search: Sequence[Value] = (),
    doc: str = "",
    seldom: bool = False,
) -> Any:
    """Declare a field of a pass or a runtime (a `dataclasses.field` with a `Parameter` beside it).

    Args:
        default: The value where nobody says otherwise.
        choices: The only values allowed, where they can be listed.
        low: Smallest allowed number, inclusive.
        high: Largest allowed number, inclusive.
        search: The values that a search should try; none for a parameter that is left alone.
        doc: One line for people, shown by `strop passes`.
        seldom: Whether only a thorough search tries them.
    """
    declared = Parameter(tuple(choices), low, high, tuple(search), doc, seldom)
    return dataclasses.field(default=default, metadata={"parameter": declared})


@dataclass(frozen=True)
class Configured:
    """A named plug-in whose dataclass fields are its parameters.

    The registry gives `name`, from the module's path (`strop.passes.prune.channels` is `prune.channels`).
    """

    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        mistakes = type(self).mistakes(self.settings())
        if mistakes:
            raise ParameterError("\n".join(mistakes))

    @classmethod
    def parameters(cls) -> dict[str, Parameter]:
        """Return the parameters by name, in the order of the class."""
        return {
            field.name: field.metadata.get("parameter", Parameter())
            for field in dataclasses.fields(cls)
        }

    @classmethod
    def defaults(cls) -> dict[str, Value]:
        """Return each parameter's default."""
        return {field.name: cast(Value, field.default) for field in dataclasses.fields(cls)}

    @classmethod
    def mistakes(cls, settings: Mapping[str, object]) -> list[str]:
        """Return what is wrong with `settings`, a line each; empty where all is well."""
        known, defaults = cls.parameters(), cls.defaults()
        found = [
            f"'{cls.name}' has no parameter '{key}'; it has: {', '.join(known) or 'none'}"
            for key in settings
            if key not in known
        ]
        for key, value in settings.items():
            if key not in known:
                continue
            wrong = _type_mistake(value, defaults[key]) or known[key].mistake(value)
            if wrong:
                found.append(f"'{cls.name}': {key} {wrong}")
        return found

    @classmethod
    def from_settings(cls, settings: Mapping[str, object]) -> Self:
        """Return the plug-in with `settings` over its defaults.

        Raises:
            ParameterError: If a name is unknown or a value not allowed; all the mistakes at once.
        """
        settings = {key: _as_field(value) for key, value in settings.items()}
        mistakes = cls.mistakes(settings)
        if mistakes:
            raise ParameterError("\n".join(mistakes))
        return cls(**settings)

    def settings(self) -> dict[str, Value]:
        """Return every parameter's value."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def changed(self) -> dict[str, Value]:
        """Return the parameters that differ from their defaults."""
        defaults = type(self).defaults()
        return {key: value for key, value in self.settings().items() if value != defaults[key]}


def option_name(name: str) -> str:
    """Return the option of the command line that gives a parameter its value.

    Example:
        >>> option_name("weight_bits")
        '--weight-bits'
    """
    return f"--{name.replace('_', '-')}"


def as_option(name: str, value: object) -> str:
    """Return a parameter's value as the command line takes it.

    Example:
        >>> as_option("augment", ("flip", "shift")), as_option("normalized", False)
        ('--augment flip,shift', '--no-normalized')
    """
    if isinstance(value, bool):
        return option_name(name) if value else f"--no-{option_name(name)[2:]}"
    told = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return f"{option_name(name)} {shlex.quote(told)}"


def _as_field(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value  # TOML and JSON know lists only


def _type_mistake(value: object, default: Value) -> str | None:
    if isinstance(default, bool) or isinstance(value, bool):
        right = isinstance(value, bool) and isinstance(default, bool)
    elif isinstance(default, float):
        right = isinstance(value, int | float)
    else:
        right = isinstance(value, type(default))
    if right and isinstance(value, tuple) and not all(isinstance(part, str) for part in value):
        return f"must hold names, or functions as 'module:name', not {value!r}"
    return None if right else f"must be a {type(default).__name__}, not {value!r}"
