"""Where the benchmark finds its data and keeps what it makes."""

import os
import re
from pathlib import Path

from strop.engine.machine import this_machine

_ROOT = Path(__file__).resolve().parent.parent
_RESULTS = _ROOT / "benchmarks" / "results"
_ON_ANY_MACHINE = "any-machine"


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
    return _RESULTS / f"{name}-{machine.digest()[:8]}" / part


def common_figures_folder(part: str) -> Path:
    """Return the folder of figures that are no matter of the machine, such as accuracy, or a part of it."""
    return _RESULTS / _ON_ANY_MACHINE / part


def reported_folders() -> list[Path]:
    """Return the folders of figures that RESULTS.md is made of, one a kind of machine, the fullest first."""
    known = [folder for folder in _RESULTS.glob("*/") if folder.name != _ON_ANY_MACHINE]
    return sorted(known, key=lambda folder: (-len(list(folder.rglob("*.json"))), folder.name))


def cache_folder() -> Path:
    """Return the folder for what is made once and kept, ``$STROP_BENCH_CACHE`` or ``.cache`` here."""
    folder = Path(os.environ.get("STROP_BENCH_CACHE") or _ROOT / "benchmarks" / ".cache")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
