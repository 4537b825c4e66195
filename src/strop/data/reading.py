"""Samples from whatever the user names: a file, a folder, a function, or Python objects."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from strop.core.errors import SamplesError, message
from strop.core.signature import Signature
from strop.data.datasets import (
    is_dataset_folder,
    read_dataset_folder,
    read_function,
    read_object,
)
from strop.data.images import is_image, read_image, read_images
from strop.data.npz import read_npz
from strop.data.raw import Preparation, RawSamples, Reader


def read(
    source: object, signature: Signature, preparation: Preparation | None = None
) -> RawSamples:
    """Return the samples in `source`, fitted to `signature`.

    Args:
        source: A path (``.npz``, ``.npy``, a folder of images or one image, a saved `tf.data` dataset),
            ``package.module:function``, or Python objects (arrays, ``(x, y)``, a dict, a dataset).
        signature: The model's.
        preparation: What is done to float inputs before the model sees them.

    Raises:
        SamplesError: If there is nothing, it can't be read, or it does not fit.
    """
    preparation = preparation or Preparation()
    if not isinstance(source, str | Path):
        return read_object(source, Reader(signature, preparation, "the samples"))
    reader = Reader(signature, preparation, f"'{source}'")
    path = Path(source)
    if not path.exists() and ":" in str(source):
        return read_function(str(source), _function(str(source)), reader)
    if not path.exists():
        raise SamplesError(
            message(
                f"there is no '{source}'.",
                "Samples are an .npz or .npy file, a folder of images (or one, to verify), a saved tf.data dataset, or "
                "package.module:function.",
            )
        )
    if path.is_dir():
        return (
            read_dataset_folder(path, reader)
            if is_dataset_folder(path)
            else read_images(path, reader)
        )
    if path.stat().st_size == 0:
        raise SamplesError(f"the file '{source}' is empty.")
    if path.suffix in (".npz", ".npy"):
        return read_npz(path, reader)
    if is_image(path):
        return read_image(path, reader)
    raise SamplesError(
        message(
            f"'{source}' has a suffix that is not known.",
            "Samples are an .npz or .npy file, a folder of images (or one, to verify), a saved tf.data dataset, or "
            "package.module:function.",
        )
    )


def _function(name: str) -> Callable[[], Any]:
    module_name, _, function_name = name.rpartition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module_name), function_name)  # type: ignore[no-any-return]
    # The module is the user's, so any error may come out of it.
    except Exception as error:  # noqa: BLE001
        raise SamplesError(
            message(
                f"'{name}' can't be used: {type(error).__name__}: {error}",
                "It must name a function in a module that Python finds from here.",
            )
        ) from None
