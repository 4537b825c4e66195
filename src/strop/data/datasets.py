"""Samples drawn from something that gives them: a `tf.data.Dataset`, an iterable, what a function returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from strop.core.errors import SamplesError, message
from strop.data.drawing import WEIGHTED, draw, unpacked
from strop.data.raw import RawSamples, Reader


def is_dataset_folder(path: Path) -> bool:
    """Say whether `path` is what `tf.data.Dataset.save` writes."""
    return (path / "dataset_spec.pb").exists() or (path / "snapshot.metadata").exists()


def read_dataset_folder(path: Path, reader: Reader) -> RawSamples:
    """Return what a saved `tf.data` dataset holds.

    Raises:
        SamplesError: If it can't be read.
    """
    import tensorflow as tf

    try:
        dataset = tf.data.Dataset.load(str(path))
    except (tf.errors.OpError, ValueError, OSError) as error:
        raise SamplesError(f"'{path}' can't be read as a saved dataset: {error}") from None
    return read_object(dataset, reader)


def read_function(name: str, function: Callable[[], Any], reader: Reader) -> RawSamples:
    """Return what the user's `function` returns, drawn once.

    Raises:
        SamplesError: If it fails, naming it.
    """
    try:
        given = function()
    # The function is the user's, so any error may come out of it.
    except Exception as error:  # noqa: BLE001
        raise SamplesError(
            message(
                f"'{name}' failed: {type(error).__name__}: {error}",
                "It is called without arguments and returns arrays, (x, y), a dict, or a tf.data.Dataset.",
            )
        ) from None
    return read_object(given, reader)


def read_object(given: Any, reader: Reader) -> RawSamples:
    """Return samples from arrays, ``(x, y)``, ``((x, y), (x, y))``, a mapping, or a dataset.

    Sample weights, third in a tuple, are left out with a note.

    Raises:
        SamplesError: If it is none of these, or does not fit.
    """
    if isinstance(given, np.ndarray | Mapping):
        return _from_mapping(given, reader)
    if isinstance(given, tuple) and len(given) == 2:
        if all(isinstance(part, tuple) and len(part) == 2 for part in given):
            train, test = given
            return RawSamples(train=reader.samples(*train), test=reader.samples(*test))
        return RawSamples(whole=reader.samples(*given))
    if isinstance(given, tuple) and len(given) in (1, 3):
        x, y, is_weighted = unpacked(given, reader.signature)
        return RawSamples(whole=reader.samples(x, y), notes=(WEIGHTED,) if is_weighted else ())
    if isinstance(given, tuple | list) and given and isinstance(given[0], np.ndarray):
        return RawSamples(whole=reader.samples(given))
    if isinstance(given, Iterable):
        return draw(given, reader)
    raise SamplesError(
        message(
            f"{reader.source} is a {type(given).__name__}.",
            "Samples are arrays, (x, y), ((x_train, y_train), (x_test, y_test)), a dict by input name, or a "
            "tf.data.Dataset.",
        )
    )


def _from_mapping(given: Any, reader: Reader) -> RawSamples:
    if isinstance(given, Mapping) and "y" in given and "y" not in reader.signature.input_names:
        rest = {name: array for name, array in given.items() if name != "y"}
        inputs = (
            rest["x"] if set(rest) == {"x"} and "x" not in reader.signature.input_names else rest
        )
        return RawSamples(whole=reader.samples(inputs, given["y"]))
    return RawSamples(whole=reader.samples(given))
