"""The registry: plug-ins by name, found by their module's name, imported only when asked for."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

from strop.core.contracts import Metric, Pass, PlugIn, Runtime
from strop.core.errors import UnknownNameError

P = TypeVar("P", bound=PlugIn)


class Registry(Generic[P]):
    """All plug-ins of one contract.

    A module ``strop.passes.prune.channels`` is the plug-in ``prune.channels``. Other packages add theirs
    through an entry point of the group named like our package (``strop.passes``), whose value is a class.
    """

    def __init__(self, kind: str, package: str, contract: type[P]) -> None:
        self.kind = kind
        self._package = package
        self._contract = contract
        self._classes: dict[str, type[P]] = {}

    def names(self) -> tuple[str, ...]:
        """Return every name, sorted. Imports nothing."""
        return tuple(sorted({*_modules_beneath(self._package), *self._entry_points()}))

    def get(self, name: str) -> type[P]:
        """Return the plug-in called `name`.

        Raises:
            UnknownNameError: If there is none; offers the nearest.
        """
        if name not in self._classes:
            self._classes[name] = self._load(name)
        return self._classes[name]

    def __iter__(self) -> Iterator[type[P]]:
        return (self.get(name) for name in self.names())

    def _load(self, name: str) -> type[P]:
        if name in _modules_beneath(self._package):
            return self._class_in(f"{self._package}.{name}")
        entry = self._entry_points().get(name)
        if entry is None:
            raise UnknownNameError(self.kind, name, self.names())
        found: type[P] = entry.load()
        found.name = name
        return found

    def _class_in(self, module_name: str) -> type[P]:
        module = importlib.import_module(module_name)
        classes = [
            member
            for _, member in inspect.getmembers(module, inspect.isclass)
            if member.__module__ == module_name
            and issubclass(member, self._contract)
            and not member.__name__.startswith("_")
        ]
        (found,) = classes  # held by tests/test_architecture.py
        return found

    def _entry_points(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {e.name: e for e in importlib.metadata.entry_points(group=self._package)}


@cache
def _modules_beneath(package: str) -> frozenset[str]:
    """Return dotted names of all modules beneath `package`, relative to it, without importing any."""
    folder = Path(__file__).parents[2].joinpath(*package.split("."))
    return frozenset(_walk(folder, ""))


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    for found in pkgutil.iter_modules([str(folder)]):
        if found.name.startswith("_"):
            continue
        if found.ispkg:
            yield from _walk(folder / found.name, f"{prefix}{found.name}.")
        else:
            yield prefix + found.name


passes: Registry[Pass] = Registry("pass", "strop.passes", Pass)  # type: ignore[type-abstract]
runtimes: Registry[Runtime] = Registry("runtime", "strop.runtimes", Runtime)  # type: ignore[type-abstract]
metrics: Registry[Metric] = Registry("metric", "strop.metrics", Metric)  # type: ignore[type-abstract]
