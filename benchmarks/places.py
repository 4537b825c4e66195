"""Where the benchmark finds its data and keeps what it makes."""

import os
import re
from pathlib import Path

from strop.engine.machine import this_machine

_ROOT = Path(__file__).resolve().parent.parent


class CaseUnavailableError(Exception):
    """A case cannot run here; the text says why and how it could."""


def data_file(name: str) -> Path:
    """Return a file of the data folder, ``$STROP_DATA`` or ``../shared/data``.

    Raises:
        CaseUnavailableError: If the file is not there.
    """
    folder = Path(os.environ.get("STROP_DATA") or _ROOT.parent / "shared" / "data")
    path = folder / name
    if not path.exists():
        raise CaseUnavailableError(f"{name} is not in {folder}; set STROP_DATA to where it is")
    return path


def figures_folder(part: str = "") -> Path:
    """Return the folder of the figures of this kind of machine, which are kept with the source, or a part of it.

    What takes hours is gone on with wherever a machine of the same kind is. Models and studies lie in the cache.
    """
    machine = this_machine()
    name = re.sub(r"\W+", "-", f"{machine.processor} {machine.cores} cores").strip("-").lower()
    return _ROOT / "benchmarks" / "results" / f"{name}-{machine.digest()[:8]}" / part


def reported_folders() -> list[Path]:
    """Return the folders of figures that RESULTS.md is made of, one a kind of machine, the fullest first."""
    known = (_ROOT / "benchmarks" / "results").glob("*/")
    return sorted(known, key=lambda folder: (-len(list(folder.rglob("*.json"))), folder.name))


def cache_folder() -> Path:
    """Return the folder for what is made once and kept, ``$STROP_BENCH_CACHE`` or ``.cache`` here."""
    folder = Path(os.environ.get("STROP_BENCH_CACHE") or _ROOT / "benchmarks" / ".cache")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
