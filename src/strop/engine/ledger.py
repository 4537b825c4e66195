"""The ledger: every trial of a study in one SQLite file, written as it ends."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from strop.core.errors import OutputError, message
from strop.core.evaluation import Evaluation
from strop.core.recipe import Recipe

State = Literal["done", "failed", "declined", "dropped"]

_TABLES = """
CREATE TABLE IF NOT EXISTS trials (
    key TEXT PRIMARY KEY, number INTEGER, recipe TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
    evaluation TEXT, facts TEXT NOT NULL, seconds REAL NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Trial:
    """One recipe carried out: its evaluation, or the reason why there is none.

    Attributes:
        key: Digest of the recipe.
        recipe: What was tried.
        state: ``done``; ``failed`` (an error); ``declined`` (a pass had nothing to do); ``dropped``
            (not worth going on with).
        reason: Why, for all but plain ``done``; one sentence.
        evaluation: What was measured; None where it did not come to that.
        facts: What the passes found worth telling (see `Model.facts`).
        seconds: How long it took.
        number: Its place in the order of trials, from 1.
    """

    key: str
    recipe: Recipe
    state: State
    reason: str = ""
    evaluation: Evaluation | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    number: int = 0

    def __hash__(self) -> int:
        return hash(self.key)


class Ledger:
    """All trials of one study. Opening takes the study: a second process is refused, not mixed in.

    Args:
        folder: The study's folder; ``ledger.sqlite`` lies there.

    Raises:
        OutputError: If another process has the study open, or the file is no ledger.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # SQLite's own lock on a file beside: portable, and gone with the process however it ends.
        self._lock = sqlite3.connect(folder / "lock.sqlite", timeout=0.1, isolation_level=None)
        self._file = folder / "ledger.sqlite"
        try:
            self._lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            self._lock.close()
            raise OutputError(
                message(
                    f"the study '{folder}' is in use by another process.",
                    "Wait until that one ends, or give this one a folder of its own.",
                    next_step="strop optimize ... --output another-folder",
                )
            ) from None
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._lock.close()
            raise OutputError(
                message(
                    f"'{self._file}' is no ledger that can be read: {error}.",
                    "Move the folder away to begin the study anew.",
                )
            ) from None

    def _open(self) -> None:
        self._connection = sqlite3.connect(self._file, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.executescript(_TABLES)

    def record(self, trial: Trial) -> Trial:
        """Write `trial` down, in place of an earlier one of the same key; return it numbered."""
        numbered = self._numbered(trial)
        evaluation = trial.evaluation and json.dumps(trial.evaluation.to_json())
        row = (
            trial.key, numbered.number, json.dumps(trial.recipe.to_json()), trial.state, trial.reason,
            evaluation, json.dumps(dict(trial.facts), default=str), trial.seconds, time.time(),
        )  # fmt: skip
        try:
            self._connection.execute(
                "INSERT OR REPLACE INTO trials VALUES (?,?,?,?,?,?,?,?,?)", row
            )
        except sqlite3.OperationalError as error:
            raise self._no_room(error) from None
        return numbered

    def _numbered(self, trial: Trial) -> Trial:
        earlier = self._connection.execute(
            "SELECT number FROM trials WHERE key = ?", (trial.key,)
        ).fetchone()
        highest = self._connection.execute(
            "SELECT COALESCE(MAX(number), 0) FROM trials"
        ).fetchone()
        return Trial(**{**vars(trial), "number": earlier[0] if earlier else highest[0] + 1})

    def get(self, key: str) -> Trial | None:
        """Return the trial of that key, if it was made."""
        row = self._connection.execute("SELECT * FROM trials WHERE key = ?", (key,)).fetchone()
        return _trial(row) if row else None

    def trials(self) -> list[Trial]:
        """Return every trial in the order they were first made."""
        rows = self._connection.execute("SELECT * FROM trials ORDER BY number").fetchall()
        return [_trial(row) for row in rows]

    def remember(self, name: str, value: object) -> None:
        """Keep a fact about the study (plain values) under `name`."""
        try:
            self._connection.execute(
                "INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value))
            )
        except sqlite3.OperationalError as error:
            raise self._no_room(error) from None

    def recall(self, name: str) -> Any:
        """Return the fact kept under `name`, or None."""
        row = self._connection.execute(
            "SELECT value FROM facts WHERE name = ?", (name,)
        ).fetchone()
        return json.loads(row[0]) if row else None

    def close(self) -> None:
        """Give the study free."""
        self._connection.close()
        self._lock.close()

    def _no_room(self, error: sqlite3.OperationalError) -> OutputError:
        return OutputError(
            message(
                f"could not write '{self._file}': {error}.",
                "Nothing that was finished is lost; free some room and run the same command again.",
            )
        )


def _trial(row: tuple[Any, ...]) -> Trial:
    key, number, recipe, state, reason, evaluation, facts, seconds, _ = row
    return Trial(
        key,
        Recipe.from_json(json.loads(recipe)),
        state,
        reason,
        Evaluation.from_json(json.loads(evaluation)) if evaluation else None,
        json.loads(facts),
        seconds,
        number,
    )
