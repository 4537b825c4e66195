"""What a way of running a model by hand consists of, and the place where it works."""

import importlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import Case

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Opened:
    """A model ready to run.

    Attributes:
        predict: Maps one batch, of the size it was opened for, to the outputs. Every case has a
            single input.
        predict_many: Maps any number of samples at once, where the engine itself batches them.
    """

    predict: Callable[[Array], list[Array]]
    predict_many: Callable[[Array], list[Array]] | None = None


@dataclass(frozen=True)
class Workplace:
    """Where the files of one case are made by hand: each once, whoever needs it next.

    Attributes:
        case: The model and its samples.
        batch: The batch size that is going to be served.
        folder: Where the files go.
    """

    case: Case
    batch: int
    folder: Path

    def once(
        self,
        name: str,
        make: Callable[[Path], dict[str, float] | None],
        *,
        engines: tuple[str, ...] = (),
    ) -> Path:
        """Return the file or folder of that name, made by `make` where it is not there yet.

        How many seconds it took is kept beside it, with the parts that `make` told apart, so that
        what several ways share is counted once. The import of `engines` is not in it: by hand it
        happens once for the whole list.
        """
        target = self.folder / name
        if target.exists():
            return target
        self.folder.mkdir(parents=True, exist_ok=True)
        # Some tools look at the ending, so the mark of the unfinished goes in front.
        unfinished = self.folder / f"unfinished-{name}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.unlink(missing_ok=True)
        for engine in engines:
            importlib.import_module(engine)
        start = time.perf_counter()
        parts = make(unfinished) or {}
        seconds = time.perf_counter() - start
        (self.folder / f"{name}.cost.json").write_text(json.dumps({"total": seconds, **parts}))
        unfinished.rename(target)
        return target

    def costs(self) -> dict[str, dict[str, float]]:
        """Return what each file made here has cost so far, in seconds."""
        ending = ".cost.json"
        return {
            path.name.removesuffix(ending): json.loads(path.read_text())
            for path in sorted(self.folder.glob(f"*{ending}"))
        }


@dataclass(frozen=True)
class Way:
    """One entry of the list: an engine used in one of its documented ways.

    Attributes:
        name: The engine and what is particular, as in ``litert_static_int8``.
        how: What is done, in a line, with the page of the documentation that says so.
        build: Makes the files that `open` needs; may take an engine's converter, so it runs in a
            process of its own.
        open: Makes the model ready to run in this process.
    """

    name: str
    how: str
    build: Callable[[Workplace], Any]
    open: Callable[[Workplace], Opened]
