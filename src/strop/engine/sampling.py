"""The user's samples read, fitted, split or left whole, and written where workers can map them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from strop.core import digest
from strop.core.errors import SamplesError, message
from strop.core.model import Model
from strop.core.samples import Splits
from strop.data.datasets import is_dataset_folder
from strop.data.images import is_image
from strop.data.raw import Preparation
from strop.data.reading import read
from strop.data.splitting import split, synthesize, undivided
from strop.engine.store import draft_in, no_room, sweep_drafts

_DRAWN = "drawn"
_WHOLE = "whole"


def draw(source: object, model: Model, preparation: Preparation, seed: int, folder: Path) -> Path:
    """Return the folder beneath `folder` that the four splits of `source` were written to.

    A function and a saved dataset may give others each time they are asked, or the same in another order, so
    what was drawn from them is remembered and taken again as long as the function's module, or the dataset's
    files, stay what they were. For files of samples their content decides.

    Args:
        source: As for `strop.data.reading.read`; None to make inputs up.
        model: Whose signature the samples must fit.
        preparation: What is done to float inputs.
        seed: For the drawing.
        folder: Where splits are kept, by their digest.

    Raises:
        SamplesError: If the samples can't be read or don't fit.
        OutputError: If there is no room.
    """
    sweep_drafts(folder)
    giver = _giver(source)
    key = giver and digest.of_value([giver, vars(preparation), seed, model.signature.to_json()])
    kept = _remembered(folder, key) if key else None
    if kept:
        return kept
    if source is None:
        splits: Splits = synthesize(model.signature, seed=seed)
    else:
        _refuse_lone_image(source)
        splits = split(read(source, model.signature, preparation), seed=seed)
    if key:
        note = f"'{source}' was asked once; later runs in this folder take the same samples again"
        splits = replace(splits, notes=(*splits.notes, note))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target = _written(splits, folder)
        if key:
            _remember(folder, key, target)
    except OSError as error:
        raise no_room(folder, error) from None
    return target


def _refuse_lone_image(source: object) -> None:
    if isinstance(source, str | Path) and is_image(Path(source)):
        raise SamplesError(
            message(
                f"'{source}' is one image.",
                "A folder of them is needed, with a folder a class where there are classes; one alone shows two models "
                "side by side in strop verify.",
                next_step=f"--data {Path(source).parent}",
            )
        )


def gather(
    source: object, model: Model, preparation: Preparation, seed: int, folder: Path
) -> Path:
    """Return the folder beneath `folder` that all of `source` was written to that can be judged on, undivided.

    For work that makes and chooses nothing, so that no sample need be kept from it.

    Args:
        source: As for `draw`.
        model: As for `draw`.
        preparation: As for `draw`.
        seed: For inputs that are made up.
        folder: Whatever was gathered there before is written over.

    Raises:
        SamplesError: If the samples can't be read or don't fit.
        OutputError: If there is no room.
    """
    if source is None:
        samples = synthesize(model.signature, seed=seed).confirm
    else:
        samples = undivided(read(source, model.signature, preparation))
    target = folder / _WHOLE
    try:
        samples.save(target)
    except OSError as error:
        raise no_room(folder, error) from None
    return target


def _written(splits: Splits, folder: Path) -> Path:
    """Write `splits` beneath `folder` under their digest, unless they are there; whole or not at all."""
    target = folder / splits.digest()[:32]
    if not _is_whole(target):
        with draft_in(folder) as draft:
            splits.save(draft)
            shutil.rmtree(target, ignore_errors=True)
            draft.rename(target)
    return target


def _giver(source: object) -> list[object] | None:
    """Return what a source that may give others each time can be known by; None for every other source."""
    if not isinstance(source, str | Path):
        return None
    path = Path(source)
    if path.is_dir() and is_dataset_folder(path):
        # Names, sizes and times: the content may be far more than is ever drawn.
        files = sorted(file for file in path.rglob("*") if file.is_file())
        facts = [(str(f.relative_to(path)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
        return [str(path.resolve()), facts]
    if ":" in str(source) and not path.exists():
        return [str(source), _code(str(source).rpartition(":")[0])]
    return None


def _code(module: str) -> str:
    """Return the digest of a module's file; empty where there is none, which reading it will tell."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    # Finding a module imports the packages that it lies in, and any error may come out of those.
    with contextlib.suppress(Exception):
        found = importlib.util.find_spec(module)
        if found and found.origin and Path(found.origin).is_file():
            return digest.of_path(Path(found.origin))
    return ""


def _is_whole(kept: Path) -> bool:
    """Say whether the splits in the folder `kept` are there and still what their name says."""
    try:
        return Splits.load(kept).digest()[:32] == kept.name
    except (OSError, ValueError, KeyError, EOFError):
        return False


def _remembered(folder: Path, key: str) -> Path | None:
    """Return the splits that were drawn under `key`; None where there are none, or they were damaged."""
    try:
        kept = folder / str(json.loads((folder / _DRAWN / key).read_text()))
    except (OSError, ValueError):
        return None
    return kept if _is_whole(kept) else None


def _remember(folder: Path, key: str, target: Path) -> None:
    (folder / _DRAWN).mkdir(exist_ok=True)
    draft = folder / _DRAWN / f"{key}-{os.getpid()}"
    draft.write_text(json.dumps(target.name))
    draft.replace(folder / _DRAWN / key)
