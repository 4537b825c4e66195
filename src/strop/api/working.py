"""Where the functions for users do their work: a folder of their own, and workers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from strop.engine.executors.local import LocalExecutor


@contextmanager
def workplace() -> Iterator[tuple[Path, LocalExecutor]]:
    """Give a folder that is gone afterwards, and workers that find the user's modules in the current folder."""
    with (
        tempfile.TemporaryDirectory(prefix="strop-") as scratch,
        LocalExecutor((str(Path.cwd()),)) as executor,
    ):
        yield Path(scratch), executor
