"""Samples in a folder of images with a folder a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import MissingDependencyError, SamplesError, message
from strop.data.raw import RawSamples, Reader

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"})
_MOST_IMAGES = 20_000


def read_images(path: Path, reader: Reader) -> RawSamples:
    """Return the images beneath `path`, resized to the input; targets are the sorted folders' numbers.

    Raises:
        SamplesError: If there are no images, one can't be read, or the input takes none.
    """
    size = _size_of_input(reader)
    folders = sorted(p for p in path.iterdir() if p.is_dir() and _images(p))
    if folders:
        files = [(file, label) for label, folder in enumerate(folders) for file in _images(folder)]
    else:
        files = [(file, -1) for file in _images(path)]
    if not files:
        raise SamplesError(
            message(
                f"the folder '{path}' holds no images that are known ({', '.join(sorted(SUFFIXES))}).",
                "Images lie in one folder a class, named as you like.",
            )
        )
    notes = (
        [f"classes in order: {', '.join(folder.name for folder in folders)}"] if folders else []
    )
    if len(files) > _MOST_IMAGES:
        chosen = np.random.default_rng(0).permutation(len(files))[:_MOST_IMAGES]
        notes.append(f"of {len(files)} images, {_MOST_IMAGES} were drawn")
        files = [files[i] for i in sorted(chosen)]
    pixels = np.stack([decode(file, size) for file, _ in files])
    labels = np.array([label for _, label in files], np.int64) if folders else None
    return RawSamples(whole=reader.samples(pixels, labels), notes=tuple(notes))


def decode(file: Path, size: Sequence[int]) -> NDArray[np.float32]:
    """Return an image as float32 pixels of 0..255, height × width × channels as `size` says.

    Raises:
        SamplesError: If it can't be read.
        MissingDependencyError: If Pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingDependencyError("reading images", "pillow") from None

    height, width, channels = size
    try:
        with Image.open(file) as image:
            converted = image.convert("RGB" if channels == 3 else "L")
            resized = converted.resize((width, height), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise SamplesError(f"the image '{file}' can't be read: {error}") from None
    return np.asarray(resized, np.float32).reshape(height, width, channels)


def _size_of_input(reader: Reader) -> tuple[int, int, int]:
    spec = reader.signature.inputs[0]
    size = spec.shape[1:]
    if len(reader.signature.inputs) != 1 or len(size) != 3 or size[-1] not in (1, 3):
        raise SamplesError(
            message(
                f"the samples are images, but the model takes {reader.signature}.",
                "Images fit one input of shape (batch, height, width, 1 or 3).",
            )
        )
    if None in size:
        raise SamplesError(
            message(
                f"the input '{spec.name}' leaves height or width open, so images can't be resized to it.",
                "Say which size to take.",
                next_step=f"--shape {spec.name}=1,224,224,3",
            )
        )
    return size[0] or 0, size[1] or 0, size[2] or 0


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
