"""The files of a report: ``report.html``, ``report.md``, ``trials.csv``, ``best.toml``, each written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from strop.core.errors import OutputError, message
from strop.engine.outcome import Circumstances, Outcome
from strop.engine.store import no_room
from strop.report.markdown import markdown
from strop.report.page import page
from strop.report.table import csv_text


def write_reports(folder: Path, outcome: Outcome, circumstances: Circumstances) -> None:
    """Write the reports into `folder`.

    Raises:
        OutputError: If there is no room.
    """
    texts = {
        "report.md": markdown(outcome, circumstances),
        "trials.csv": csv_text(outcome, circumstances),
        "report.html": page(outcome, circumstances),
    }
    if outcome.best:
        texts["best.toml"] = outcome.best.recipe.to_toml()
    for name, text in texts.items():
        write_whole(folder / name, text)


def refuse_file(folder: Path) -> None:
    """Refuse a file, or a place beneath one, where a folder for results is needed.

    Raises:
        OutputError: Naming the file.
    """
    nearest = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    if nearest.exists() and not nearest.is_dir():
        raise OutputError(
            message(
                f"'{nearest}' is a file; the results need a folder.", next_step="--output NAME"
            )
        )


def made_folder(folder: Path) -> Path:
    """Return `folder`, made where it is not there.

    Raises:
        OutputError: If it is a file, or can't be made.
    """
    refuse_file(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder '{folder}' can't be written: {error.strerror}.") from None
    return folder


def write_whole(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it, so that nobody ever sees half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise no_room(path.parent, error) from None
