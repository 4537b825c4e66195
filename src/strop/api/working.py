"""Where the functions for users do their work, and how a file of theirs is written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from strop.core.errors import OutputError, message
from strop.engine.executors.local import LocalExecutor
from strop.engine.store import left_if_interrupted, no_room
from strop.search.events import Listener, StepProgressed


@contextmanager
def workplace(unfinished: Path | None = None) -> Iterator[tuple[Path, LocalExecutor]]:
    """Give a folder that is gone afterwards, and workers that find the user's modules in the current folder.

    Args:
        unfinished: Where the folder is to be, for work that an interrupted call left there, and leaves there when it
            is interrupted; None for anywhere.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(left_if_interrupted(unfinished)) if unfinished else None
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="strop-")))
        yield folder, stack.enter_context(LocalExecutor((str(Path.cwd()),)))


def telling(listen: Listener, name: str) -> Callable[[float, str], None]:
    """Return what tells a listener how far a step is; a worker that only lives says a share below 0."""

    def tell(share: float, note: str) -> None:
        if share >= 0:
            listen(StepProgressed(name, share, note))

    return tell


def refuse_output(target: Path, model: Any, *, example: str, suffix: str = "") -> None:
    """Raise `OutputError` where a file can't be written at `target`, or would be written over the model.

    Args:
        target: The file.
        model: What it is made from; a path, or an object.
        example: An option that does, for the message.
        suffix: What its name has to end in, such as ``.keras``; empty for anything.
    """
    if isinstance(model, str | Path) and target.resolve() == Path(model).resolve():
        raise OutputError(
            message(
                f"'{target}' is the model itself, which is never written over.", next_step=example
            )
        )
    if target.is_dir() or not target.parent.is_dir():
        what = "is a folder" if target.is_dir() else "lies in no folder that is there"
        raise OutputError(message(f"'{target}' {what}; a file is written.", next_step=example))
    if suffix and target.suffix != suffix:
        raise OutputError(
            message(f"'{target}': a file ending in {suffix} is written.", next_step=example)
        )
    if not os.access(target.parent, os.W_OK):
        raise OutputError(
            message(f"nothing can be written in the folder of '{target}'.", next_step=example)
        )


def write_file(made: Path, target: Path) -> None:
    """Copy a file under a temporary name and rename it, so that nobody ever sees half of it.

    Raises:
        OutputError: If there is no room for it.
    """
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(made, draft)
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise no_room(target.parent, error) from None
