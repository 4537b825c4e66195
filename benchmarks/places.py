"""Where the benchmark finds its data and keeps what it makes."""

import os
from pathlib import Path

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


def cache_folder() -> Path:
    """Return the folder for what is made once and kept, ``$STROP_BENCH_CACHE`` or ``.cache`` here."""
    folder = Path(os.environ.get("STROP_BENCH_CACHE") or _ROOT / "benchmarks" / ".cache")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
