"""The store: models by how they were made, on disk, each whole or not there at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import psutil

from strop.core.contracts import Unchanged
from strop.core.errors import Cancelled, InputError, OutputError, WorkerDiedError, message
from strop.core.model import Model, digest_of

_ENTRY = "entry.json"
_DRAFT = "draft-"
_UNFINISHED, _LOCK = "unfinished", "lock"
_LEAST_FREE_BYTES = 4_000_000


class Store:
    """A folder of finished steps, keyed by how each was made.

    An entry is written under a temporary name and renamed when it is whole, so a process killed at any
    instant leaves either all of it or a draft that the next one sweeps away. An entry whose bytes no
    longer match its digest is dropped and made again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sound: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        sweep_drafts(folder)

    def get(self, key: str) -> Model | Unchanged | None:
        """Return what was kept under `key`; None where there is nothing, or it was damaged."""
        entry = self.folder / key
        try:
            data = json.loads((entry / _ENTRY).read_text())
            if "unchanged" in data:
                return Unchanged(data["unchanged"])
            model = Model.from_json(data["model"], folder=entry)
            if key in self._sound or digest_of(model.form, model.path) == model.digest:
                self._sound.add(key)
                return model
        except FileNotFoundError:
            if not entry.exists():
                return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # damaged: made again below, like one whose digest is off
        shutil.rmtree(entry, ignore_errors=True)
        return None

    def put(self, key: str, outcome: Model | Unchanged, draft: Path) -> Model | Unchanged:
        """Keep `outcome`, whose files lie in `draft` (or elsewhere, for a model left as it was).

        Returns:
            The outcome with its path in the store; what another process put there first stays.

        Raises:
            OutputError: If there is no room.
        """
        if isinstance(outcome, Unchanged):
            data: dict[str, object] = {"unchanged": outcome.reason}
            kept: Model | Unchanged = outcome
        else:
            inside = outcome.path.is_relative_to(draft)
            path = outcome.path.relative_to(draft) if inside else outcome.path
            data = {"model": replace(outcome, path=path).to_json()}
            kept = replace(outcome, path=self.folder / key / path if inside else outcome.path)
        try:
            with (draft / _ENTRY).open("w") as file:
                json.dump(data, file)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(self.folder / key)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise no_room(self.folder, error) from None
            # Another process made the same meanwhile. The rename itself has to tell: one that looked
            # first could be overtaken between the look and the rename. A damaged one makes room for ours.
            return self.get(key) or self.put(key, outcome, draft)
        self._sound.add(key)
        return kept

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Give an empty folder to write an entry in; what was not `put` is thrown away."""
        with draft_in(self.folder) as folder:
            yield folder

    def unfinished(self, key: str) -> AbstractContextManager[Path | None]:
        """Return a folder for what long work on `key` goes on from; see `left_if_interrupted`."""
        return left_if_interrupted(self.folder / _UNFINISHED / key)


@contextmanager
def left_if_interrupted(folder: Path) -> Iterator[Path | None]:
    """Give `folder` for work that can go on from what is in it; None where another process works there.

    It is gone once the work is done or has failed, and stays where the user, the budget, a signal or a full disk ended
    it. A slip in what is given the next time loses nothing of before.

    Raises:
        OutputError: If there is no room.
    """
    was_there = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("w")
    except OSError as error:
        raise no_room(folder.parent, error) from None
    with lock:
        if not _is_ours(lock):
            yield None
            return
        try:
            yield folder
        except (KeyboardInterrupt, Cancelled, WorkerDiedError, OutputError):
            raise
        except BaseException as error:
            if not (was_there and isinstance(error, InputError)):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _is_ours(lock: IO[str]) -> bool:
    """Say whether an open file is locked by this process from now on; the system frees it with the process."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had it before may have removed the file since it was opened here; then others lock another.
        return os.path.samestat(os.fstat(lock.fileno()), Path(lock.name).stat())
    except OSError:
        return False


@contextmanager
def draft_in(folder: Path, prefix: str = _DRAFT) -> Iterator[Path]:
    """Give an empty folder beneath `folder`, named for this process, and remove it unless it was renamed.

    Raises:
        OutputError: If there is no room.
    """
    try:
        draft = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=folder))
    except OSError as error:
        raise no_room(folder, error) from None
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def sweep_drafts(folder: Path, prefix: str = _DRAFT) -> None:
    """Remove the drafts beneath `folder` whose makers are gone, killed before they could."""
    for draft in folder.glob(f"{prefix}*"):
        maker = draft.name.removeprefix(prefix).split("-")[0]
        if not (maker.isdigit() and psutil.pid_exists(int(maker))):
            shutil.rmtree(draft, ignore_errors=True)


def is_full(folder: Path, error: Exception) -> bool:
    """Say whether a step failed because nothing more could be written: libraries say so in many ways, or not at all."""
    return "No space left" in str(error) or shutil.disk_usage(folder).free < _LEAST_FREE_BYTES


def no_room(folder: Path, error: OSError) -> OutputError:
    """Return the error for a folder that could not be written."""
    return OutputError(
        message(
            f"could not write beneath '{folder}': {error.strerror or error}.",
            "Nothing that was finished is lost; free some room (or choose another folder) and run "
            "the same command again.",
            next_step=f"df -h {folder}",
        )
    )
