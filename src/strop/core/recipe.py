"""Recipe: passes in order, then a runtime and its settings; a value that round-trips through TOML.

In TOML a recipe reads::

    strop = 1

    [[step]]
    pass = "convert.graph_def"

    [[step]]
    pass = "convert.litert"
    batch = 1

    [runtime]
    name = "litert"
    threads = 2

Wherever a value stands, ``{ any = [...] }`` may stand instead, and so it may for a whole step: then the text is a
search space (`expand` lists its recipes). Since a step may be a choice between steps with choices of their own, one
choice may depend on another.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from strop.core import digest
from strop.core.errors import RecipeError
from strop.core.parameters import Value

FORMAT = 1


@dataclass(frozen=True)
class Step:
    """One pass with the settings that differ from its defaults.

    Attributes:
        name: The pass's name in the registry (``quantize.litert_static``).
        settings: Its settings by name.
    """

    name: str
    settings: Mapping[str, Value] = field(default_factory=dict)

    @property
    def is_conversion(self) -> bool:
        """Whether it only writes the model down in another form."""
        return self.name.startswith("convert.")

    def __str__(self) -> str:
        return _call(self.name, self.settings)

    def __hash__(self) -> int:
        return hash(str(self))


@dataclass(frozen=True)
class Recipe:
    """Passes in order, then a runtime and its settings.

    Attributes:
        steps: The passes, first to last.
        runtime: The runtime's name in the registry.
        settings: The runtime's settings that differ from their defaults.

    Example:
        >>> recipe = Recipe((Step("convert.litert", {"batch": 1}),), "litert", {"threads": 2})
        >>> print(recipe)
        convert.litert(batch=1) @ litert(threads=2)
        >>> Recipe.from_toml(recipe.to_toml()) == recipe
        True
    """

    steps: tuple[Step, ...]
    runtime: str
    settings: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        steps = " > ".join(map(str, self.steps))
        return f"{steps} @ {self.place}" if steps else f"as it is @ {self.place}"

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def place(self) -> str:
        """The runtime with its settings, as one line."""
        return _call(self.runtime, self.settings)

    def digest(self) -> str:
        """Return the recipe's digest."""
        return digest.of_value(self.to_json())

    def on(self, runtime: str, settings: Mapping[str, Value] | None = None) -> Recipe:
        """Return the same steps under another runtime or other settings."""
        return Recipe(self.steps, runtime, dict(settings or {}))

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` takes back; the shape of the TOML text."""
        steps = [{"pass": s.name, **_plain(s.settings)} for s in self.steps]
        return {
            "strop": FORMAT,
            "step": steps,
            "runtime": {"name": self.runtime, **_plain(self.settings)},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, where: str = "the recipe") -> Recipe:
        """Return the one recipe in `data`.

        Raises:
            RecipeError: If `data` is no recipe, or a space of several.
        """
        found = list(itertools.islice(expand(data, where=where), 2))
        if len(found) != 1:
            raise RecipeError(
                [f"{where} is a search space; one recipe has no {{ any = [...] }} in it"]
            )
        return found[0]

    def to_toml(self) -> str:
        """Return the recipe as TOML text, a table a step."""
        import tomli_w

        data = self.to_json()
        steps = "".join(f"[[step]]\n{tomli_w.dumps(step)}\n" for step in data["step"])
        return f"strop = {FORMAT}\n\n{steps}[runtime]\n{tomli_w.dumps(data['runtime'])}"

    @classmethod
    def from_toml(cls, text: str, *, where: str = "the recipe") -> Recipe:
        """Return the one recipe that `text` is.

        Raises:
            RecipeError: If `text` is no TOML, no recipe, or a space of several.
        """
        return cls.from_json(parse(text, where=where), where=where)


def parse(text: str, *, where: str = "the recipe") -> dict[str, Any]:
    """Return the plain values in a recipe's TOML text.

    Raises:
        RecipeError: If `text` is no TOML, with the line.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError([f"{where} is not TOML: {error}"]) from None


def expand(data: Mapping[str, Any], *, where: str = "the recipe") -> Iterator[Recipe]:
    """Yield every recipe of the search space in `data`.

    Raises:
        RecipeError: Every mistake of form at once. Names and values are checked by the engine.
    """
    mistakes = list(_mistakes(data, where))
    if mistakes:
        raise RecipeError(mistakes)
    steps = [list(_variants(step)) for step in data.get("step", [])]
    runtimes = list(_variants(data["runtime"]))
    for *chosen, runtime in itertools.product(*steps, runtimes):
        yield Recipe(
            tuple(Step(s["pass"], _settings(s, "pass")) for s in chosen if s),
            runtime["name"],
            _settings(runtime, "name"),
        )


def _variants(table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield `table` with every combination of its choices; a choice between tables is opened first."""
    if set(table) == {"any"}:
        for option in table["any"]:
            yield from _variants(option)
        return
    options = [
        value["any"] if isinstance(value, Mapping) and "any" in value else [value]
        for value in table.values()
    ]
    for values in itertools.product(*options):
        yield dict(zip(table, values, strict=True))


def _mistakes(data: Mapping[str, Any], where: str) -> Iterator[str]:
    if data.get("strop") != FORMAT:
        yield f"{where} must begin with 'strop = {FORMAT}', the version of its form"
    for stray in sorted(set(data) - {"strop", "step", "runtime"}):
        yield f"{where} has a table '{stray}' that means nothing here; there are [[step]] and [runtime]"
    if _has_empty_choice(data):
        yield f"{where}: a choice is a list of one or more, as in  {{ any = [1, 2] }}"
        return  # what follows takes choices for lists
    steps = data.get("step", [])
    if not isinstance(steps, list):
        yield f"{where}: steps are written [[step]], with two brackets"
        steps = []
    for number, step in enumerate(steps, 1):
        for variant in _safe_variants(step):
            if variant and not isinstance(variant.get("pass"), str):
                yield f'{where}, step {number}: which pass? Write  pass = "convert.litert"'
    runtime = data.get("runtime")
    if not isinstance(runtime, Mapping):
        yield f'{where} needs a table [runtime] with  name = "litert"'
        return
    for variant in _safe_variants(runtime):
        if not isinstance(variant.get("name"), str):
            yield f'{where}, [runtime]: which one? Write  name = "litert"'


def _has_empty_choice(value: object) -> bool:
    """Say whether ``any`` stands somewhere without a list of something to choose from."""
    if isinstance(value, Mapping):
        if "any" in value and not (isinstance(value["any"], list) and value["any"]):
            return True
        return any(map(_has_empty_choice, value.values()))
    return isinstance(value, list) and any(map(_has_empty_choice, value))


def _safe_variants(table: object) -> list[dict[str, Any]]:
    if not isinstance(table, Mapping):
        return [{"": table}]
    if set(table) == {"any"} and not all(isinstance(o, Mapping) for o in table["any"]):
        return [{"": table}]
    return list(_variants(table))


def _settings(table: Mapping[str, Any], name_key: str) -> dict[str, Value]:
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in table.items()
        if key != name_key
    }


def _plain(settings: Mapping[str, Value]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in sorted(settings.items())}


def _call(name: str, settings: Mapping[str, Value]) -> str:
    inside = ", ".join(itertools.starmap(setting, sorted(settings.items())))
    return f"{name}({inside})" if inside else name


def setting(name: str, value: Value) -> str:
    """Return a setting as a recipe's line has it.

    Example:
        >>> setting("threads", 2), setting("keep_float", ("a", "b", "c"))
        ('threads=2', 'keep_float=<3 names>')
    """
    if isinstance(value, tuple) and len(value) > 2:
        return f"{name}=<{len(value)} names>"
    return f"{name}={value if isinstance(value, str) else repr(value)}"
