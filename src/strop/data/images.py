"""Samples in a folder of images with a folder a class, or in one image alone."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import MissingDependencyError, SamplesError, message
from strop.core.signature import TensorSpec
from strop.data.raw import RawSamples, Reader, has_channels_first

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"})
_MOST_NAMED = 8


def read_images(path: Path, reader: Reader) -> RawSamples:
    """Return the images beneath `path`, resized to the input; targets are the sorted folders' numbers.

    A folder without images is a class too, or all labels after it would be wrong; hidden ones are none.

    Raises:
        SamplesError: If there are no images, one can't be read, the input takes none, or there are more or
            fewer folders than the output has classes.
    """
    size = _size_of_input(reader)
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    labelled = [(file, label) for label, folder in enumerate(folders) for file in _images(folder)]
    files = labelled or [(file, -1) for file in _images(path)]
    if not files:
        raise SamplesError(
            message(
                f"the folder '{path}' holds no images that are known ({', '.join(sorted(SUFFIXES))}).",
                "Images lie in one folder a class, named as you like.",
            )
        )
    notes: list[str] = []
    if labelled:
        _check_number_of(folders, path, reader)
        notes += _notes(folders, {label for _, label in labelled})
    chosen = _drawn(len(files), reader.most(_bytes_of(reader.signature.inputs[0])))
    if len(chosen) < len(files):
        notes.append(
            f"of {len(files)} images, {len(chosen)} were drawn, which is what there is room for"
        )
    pixels = np.empty((len(chosen), *size), np.uint8)
    for place, index in enumerate(chosen):
        pixels[place] = decode(files[index][0], size)
    labels = np.array([files[index][1] for index in chosen], np.int64) if labelled else None
    return RawSamples(whole=reader.samples(_placed(pixels, reader), labels), notes=tuple(notes))


def is_image(path: Path) -> bool:
    """Say whether a path is that of an image file, by its name."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def read_image(file: Path, reader: Reader) -> RawSamples:
    """Return the one sample in an image, resized to the input; it has no target.

    Raises:
        SamplesError: If it can't be read, or the input takes no image.
    """
    return RawSamples(
        whole=reader.samples(_placed(decode(file, _size_of_input(reader))[None], reader))
    )


def decode(file: Path, size: Sequence[int]) -> NDArray[np.uint8]:
    """Return an image's pixels (0..255), height × width × channels as `size` says.

    Raises:
        SamplesError: If it can't be read.
        MissingDependencyError: If Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependencyError("reading images", "pillow") from None

    height, width, channels = size
    try:
        with Image.open(file) as image:
            converted = image.convert("RGB" if channels == 3 else "L")
            resized = converted.resize((width, height), Image.Resampling.BILINEAR)
    # Pillow's decoders raise what they stumble over: OSError, SyntaxError, struct.error, DecompressionBombError.
    except Exception as error:  # noqa: BLE001
        raise SamplesError(f"the image '{file}' can't be read: {error}") from None
    return np.asarray(resized, np.uint8).reshape(height, width, channels)


def _placed(pixels: NDArray[np.uint8], reader: Reader) -> NDArray[np.uint8]:
    """Return images with their channels where the input has them."""
    if not has_channels_first(reader.signature.inputs[0]):
        return pixels
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 1))


def _check_number_of(folders: Sequence[Path], path: Path, reader: Reader) -> None:
    """Refuse folders that can't be the classes of the first output, whose number its width tells."""
    output = reader.signature.outputs[0]
    width = output.shape[1] if len(output.shape) == 2 else None
    if width is None or len(folders) == max(width, 2):
        return
    names = [folder.name for folder in folders]
    listing = ", ".join(names if len(names) <= _MOST_NAMED else [*names[:_MOST_NAMED], "…"])
    raise SamplesError(
        message(
            f"the folder '{path}' holds {len(folders)} folders ({listing}), and the output '{output.name}' tells "
            f"{max(width, 2)} classes.",
            "The folders in alphabetical order are the classes from 0 on, so each class needs its folder, be it "
            "empty; images without folders have no labels.",
            next_step=f"mkdir '{path}/NAME'" if len(folders) < max(width, 2) else "",
        )
    )


def _notes(folders: Sequence[Path], labels: Container[int]) -> list[str]:
    notes = [f"classes in order: {', '.join(folder.name for folder in folders)}"]
    without = [folder.name for label, folder in enumerate(folders) if label not in labels]
    if without:
        notes.append(f"of these classes there are no images: {', '.join(without)}")
    return notes


def _drawn(count: int, most: int) -> list[int]:
    """Return which of `count` to take: all, or `most` of them drawn at random, in order."""
    if count <= most:
        return list(range(count))
    return sorted(np.random.default_rng(0).permutation(count)[:most].tolist())


def _bytes_of(spec: TensorSpec) -> int:
    return math.prod(n or 1 for n in spec.shape[1:]) * np.dtype(spec.dtype).itemsize


def _size_of_input(reader: Reader) -> tuple[int, int, int]:
    """Return height, width and channels of the images that the input takes, wherever it has the channels."""
    spec = reader.signature.inputs[0]
    size = spec.shape[1:]
    if has_channels_first(spec):
        size = (*size[1:], size[0])
    if len(reader.signature.inputs) != 1 or len(size) != 3 or size[-1] not in (1, 3):
        raise SamplesError(
            message(
                f"the samples are images, but the model takes {reader.signature}.",
                "Images fit one input of shape (batch, height, width, 1 or 3) or (batch, 1 or 3, height, width).",
            )
        )
    if None in size:
        raise SamplesError(
            message(
                f"the input '{spec.name}' leaves height or width open, so images can't be resized to it.",
                "Say which size to take.",
                next_step=f"--shape {spec.name}=1,{'3,224,224' if has_channels_first(spec) else '224,224,3'}",
            )
        )
    return size[0] or 0, size[1] or 0, size[2] or 0


def _images(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    )
