"""Samples drawn from something that gives them: a `tf.data.Dataset`, an iterable, what a function returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import SamplesError, message
from strop.data.raw import RawSamples, Reader

CAP = 20_000
"""The most samples that are drawn from a source that may be endless."""


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
    if isinstance(given, list) and given and isinstance(given[0], np.ndarray):
        return RawSamples(whole=reader.samples(given))
    if isinstance(given, Iterable):
        return _drawn(given, reader)
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


def _drawn(dataset: Iterable[Any], reader: Reader) -> RawSamples:
    parts: list[Any] = []
    count = 0
    for element in dataset:
        x, y = element if isinstance(element, tuple) and len(element) == 2 else (element, None)
        x, y = _arrays(x), None if y is None else _arrays(y)
        x, y = _batched(x, y, reader)
        parts.append((x, y))
        count += _length(x)
        if count >= CAP:
            break
    if not parts:
        raise SamplesError(f"{reader.source} is empty: there is no sample in it.")
    inputs = _joined([x for x, _ in parts])
    targets = None if parts[0][1] is None else _joined([y for _, y in parts])
    notes = (f"drawing stopped at {count} samples",) if count >= CAP else ()
    return RawSamples(whole=reader.samples(inputs, targets), notes=notes)


def _arrays(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): np.asarray(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [np.asarray(item) for item in value]
    return np.asarray(value)


def _batched(x: Any, y: Any, reader: Reader) -> tuple[Any, Any]:
    """Give elements that are single samples a batch dimension."""
    first = _leaves(x)[0]
    if first.ndim == len(reader.signature.inputs[0].shape) - 1:
        return _each(x, lambda a: a[None]), None if y is None else _each(y, lambda a: a[None])
    return x, y


def _each(value: Any, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Any:
    if isinstance(value, Mapping):
        return {key: change(item) for key, item in value.items()}
    return [change(item) for item in value] if isinstance(value, list) else change(value)


def _leaves(value: Any) -> Sequence[NDArray[Any]]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else [value]


def _length(value: Any) -> int:
    return len(_leaves(value)[0])


def _joined(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Mapping):
        return {key: np.concatenate([part[key] for part in parts]) for key in first}
    if isinstance(first, list):
        return [np.concatenate(column) for column in zip(*parts, strict=True)]
    return np.concatenate(list(parts))
