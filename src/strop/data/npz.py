"""Samples in NumPy's files: ``.npz`` (several arrays) and ``.npy`` (one)."""

from __future__ import annotations

from collections.abc import Iterable
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
    arrays = _load(path)
    if isinstance(arrays, np.ndarray):
        return RawSamples(whole=reader.samples(arrays))
    names = reader.signature.input_names
    # The inputs' own names come first: one of them may well be called x.
    if all(name in arrays for name in names):
        return _whole({name: arrays.pop(name) for name in names}, arrays, reader)
    if "x_train" in arrays or "x_test" in arrays:
        return _pairs(arrays, reader)
    if "x" in arrays:
        return _whole(arrays.pop("x"), arrays, reader)
    raise SamplesError(
        message(
            f"'{path}' holds arrays named {', '.join(sorted(arrays)) or 'nothing'}.",
            "Known are x and y; x_train, y_train, x_test, y_test; or the names of the inputs "
            f"({', '.join(names)}) and y.",
            next_step="numpy.savez('val.npz', x=x, y=y)",
        )
    )


def _whole(inputs: Any, rest: dict[str, NDArray[Any]], reader: Reader) -> RawSamples:
    """Return `inputs` with those targets among the `rest` that are called y or as an output is."""
    names = reader.signature.output_names
    targets = {name: rest.pop(name) for name in names if name in rest}
    if "y" in rest and names[0] not in targets:
        targets[names[0]] = rest.pop("y")
    samples = reader.samples(inputs, targets or None)
    return RawSamples(whole=samples, notes=_unused(rest))


def _unused(rest: Iterable[str]) -> tuple[str, ...]:
    names = ", ".join(sorted(rest))
    return (f"of the arrays in the file these were not used: {names}",) if names else ()


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
        notes=_unused(set(arrays) - {"x_train", "y_train", "x_test", "y_test"}),
    )


def _load(path: Path) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    # What damaged bytes bring up is zlib's, zipfile's, or Python's own parser's, for the header is an expression.
    except Exception as error:  # noqa: BLE001
        if "allow_pickle" in str(error):
            right = "It holds pickled objects, which could run code and are never read."
        else:
            right = "It may be cut short, or not be what its name says."
        raise SamplesError(
            message(
                f"'{path}' can't be read as NumPy arrays: {_first_line(error)}",
                right,
                next_step="numpy.savez('val.npz', x=x.astype('float32'), y=y)",
            )
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
