"""Samples in NumPy's files: ``.npz`` (several arrays) and ``.npy`` (one)."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import SamplesError, message
from strop.data.raw import RawSamples, Reader


def read_npz(path: Path, reader: Reader) -> RawSamples:
    """Return what an ``.npz`` or ``.npy`` file holds.

    Known are: ``x`` and ``y``; ``x_train``, ``y_train``, ``x_test``, ``y_test``; or arrays named after the
    inputs, with ``y`` or arrays named after the outputs.

    Raises:
        SamplesError: If the file can't be read, or its arrays are named otherwise.
    """
    if path.suffix == ".npy":
        return RawSamples(whole=reader.samples(_load(path)))
    arrays = _load(path)
    if "x_train" in arrays or "x_test" in arrays:
        return _pairs(arrays, reader)
    if "x" in arrays:
        return RawSamples(whole=reader.samples(arrays["x"], arrays.get("y")))
    names = reader.signature.input_names
    if not all(name in arrays for name in names):
        raise SamplesError(
            message(
                f"'{path}' holds arrays named {', '.join(sorted(arrays)) or 'nothing'}.",
                "Known are x and y; x_train, y_train, x_test, y_test; or the names of the inputs "
                f"({', '.join(names)}) and y.",
                next_step="numpy.savez('val.npz', x=x, y=y)",
            )
        )
    targets: Any = arrays.get("y")
    if targets is None:
        targets = {n: arrays[n] for n in reader.signature.output_names if n in arrays} or None
    return RawSamples(whole=reader.samples({name: arrays[name] for name in names}, targets))


def _pairs(arrays: dict[str, NDArray[Any]], reader: Reader) -> RawSamples:
    for side in ("train", "test"):
        if f"x_{side}" not in arrays:
            raise SamplesError(
                f"{reader.source}: x_{side} is missing; the pairs are x_train and x_test."
            )
    if ("y_train" in arrays) != ("y_test" in arrays):
        missing = "y_test" if "y_train" in arrays else "y_train"
        raise SamplesError(
            f"{reader.source}: {missing} is missing, though its counterpart is there."
        )
    return RawSamples(
        train=reader.samples(arrays["x_train"], arrays.get("y_train")),
        test=reader.samples(arrays["x_test"], arrays.get("y_test")),
    )


def _load(path: Path) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else {n: loaded[n] for n in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        if "allow_pickle" in str(error):
            right = "It holds pickled objects, which could run code and are never read."
        else:
            right = "It may be cut short, or not be what its name says."
        raise SamplesError(
            message(
                f"'{path}' can't be read as NumPy arrays: {str(error).splitlines()[0]}",
                right,
                next_step="numpy.savez('val.npz', x=x.astype('float32'), y=y)",
            )
        ) from None
