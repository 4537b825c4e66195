"""A study's folder: whose it is, and that it may be written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from strop.core import digest
from strop.core.errors import OutputError, message
from strop.graph.reading import detect
from strop.report.folder import made_folder, refuse_file, write_whole

_MARK = "strop-study.json"


def output_folder(model: Any, output: str | Path | None) -> tuple[Path, bool]:
    """Return the folder to write, made and marked as ours, and whether it was made just now.

    Raises:
        OutputError: If it holds something else, or can't be written.
    """
    if output is not None:
        folder = Path(output)
    elif isinstance(model, str | Path):
        detect(Path(model))  # a typo in the model's name must not leave a folder behind
        folder = Path(f"{Path(model).stem}-strop")
    else:
        folder = Path(f"{getattr(model, 'name', 'model')}-strop")
    refuse_file(folder)
    mark = {"strop": 1, "source": _source_name(model)}
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise OutputError(
            message(
                f"the folder '{folder}' holds something else, which would be mixed with the results.",
                "Name another one, or an empty one.",
                next_step=f"--output {folder}-2",
            )
        )
    other = _source_in(folder / _MARK)
    if other is not None and other != mark["source"]:
        raise OutputError(
            message(
                f"the folder '{folder}' holds the results of another model, '{other}'.",
                "They would be written over. Name another folder.",
                next_step=f"--output {folder}-2",
            )
        )
    is_new = not folder.exists()
    made_folder(folder)
    write_whole(folder / _MARK, json.dumps(mark))
    return folder, is_new


def _source_name(model: Any) -> str:
    """Return what tells one model's folder from another's: where it lies, or what it is called and made of."""
    if isinstance(model, str | Path):
        return str(Path(model).resolve())
    name = str(getattr(model, "name", "model"))
    try:  # Keras calls the first of each session alike
        return f"{name} {digest.of_value(model.get_config())[:12]}"
    except Exception:  # noqa: BLE001 - a model of one's own may have no configuration, or fail to tell it
        return name


def _source_in(mark: Path) -> str | None:
    """Return the model that a results folder is of; None where that can't be told."""
    try:
        return str(json.loads(mark.read_text())["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
