"""Drawing the user's samples once: read, fitted, split, and written where workers can map them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from strop.core.model import Model
from strop.core.samples import Splits
from strop.data.raw import Preparation
from strop.data.reading import read
from strop.data.splitting import split, synthesize
from strop.engine.store import no_room


def draw(source: object, model: Model, preparation: Preparation, seed: int, folder: Path) -> Path:
    """Return the folder beneath `folder` that the four splits of `source` were written to.

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
    if source is None:
        splits: Splits = synthesize(model.signature, seed=seed)
    else:
        splits = split(read(source, model.signature, preparation), seed=seed)
    target = folder / splits.digest()[:32]
    if not (target / "splits.json").exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix="draft-", dir=folder))
            splits.save(draft)
            shutil.rmtree(target, ignore_errors=True)
            draft.rename(target)
        except OSError as error:
            raise no_room(folder, error) from None
    return target
