"""Digests: one short name for a value or for the bytes of a file, a folder or arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_CHUNK_BYTES = 1 << 20


def of_value(value: object) -> str:
    """Return the digest of plain values (what JSON can hold), whatever the order of their keys.

    Example:
        >>> of_value({"a": 1, "b": 2}) == of_value({"b": 2, "a": 1})
        True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def of_path(path: Path) -> str:
    """Return the digest of a file's bytes, or of all names and bytes beneath a folder."""
    if path.is_file():
        return _of_file(path)
    whole = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        whole.update(file.relative_to(path).as_posix().encode() + b"\0" + _of_file(file).encode())
    return whole.hexdigest()


def of_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the digest of named arrays: names, dtypes, shapes and contents."""
    whole = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        whole.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        whole.update(array.view(np.uint8).reshape(-1).data if array.size else b"")
    return whole.hexdigest()


def of_stream(stream: IO[bytes]) -> str:
    """Return the digest of the bytes that are left in `stream`."""
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return of_stream(file)
