"""Samples as they were read, before they are checked against a signature and split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import ParameterError, SamplesError, message
from strop.core.samples import Samples
from strop.core.signature import Arrays, Signature, TensorSpec

PREPROCESSING = ("tf", "torch", "caffe")
MOST_SAMPLES = 20_000
"""The most samples that are taken from a source that may hold any number of them."""
MOST_BYTES = 2_000_000_000
"""The most that those may come to, as the model takes them: they are in memory while they are split."""

_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PART = 2**22  # values that are prepared at once, in float32 16 MB


@dataclass(frozen=True)
class RawSamples:
    """What a source held: all of it, or what is for training and what is for testing.

    Attributes:
        whole: Where the source makes no difference between training and testing.
        train: What it gives for training; None without.
        test: What it gives for testing; None without.
        notes: Sentences for the report.
    """

    whole: Samples | None = None
    train: Samples | None = None
    test: Samples | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preparation:
    """What is done to float inputs before the model sees them.

    Attributes:
        scale: A factor (``1/255``); None for none.
        mean: What is taken off then; None for nothing.
        deviation: What that is divided by; None for 1.
        mode: One of Keras' `preprocess_input` modes, for pixels in 0..255: ``tf`` (to −1..1), ``torch``
            (to 0..1, then ImageNet's mean and deviation), ``caffe`` (to BGR, less ImageNet's mean); or None.
    """

    scale: float | None = None
    mode: str | None = None
    mean: float | None = None
    deviation: float | None = None

    def __post_init__(self) -> None:
        if self.deviation is not None and not self.deviation > 0:
            raise ParameterError(f"input_std must be above 0, not {self.deviation:g}")
        if self.mode is not None and self.mode not in PREPROCESSING:
            raise ParameterError(
                f"preprocess must be one of {', '.join(PREPROCESSING)}, not {self.mode!r}"
            )

    @property
    def needs_colours(self) -> bool:
        """Whether the last axis must be three colours (of images, or the one before height and width)."""
        return self.mode in ("torch", "caffe")

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return `array` prepared; the same object where there is nothing to do."""
        if self.scale is not None:
            array = (array.astype(np.float32) * np.float32(self.scale)).astype(np.float32)
        if self.mean is not None or self.deviation is not None:
            mean, deviation = np.float32(self.mean or 0.0), np.float32(self.deviation or 1.0)
            array = (array.astype(np.float32) - mean) / deviation
        if self.mode == "tf":
            array = array.astype(np.float32) / np.float32(127.5) - np.float32(1)
        elif self.mode == "torch":
            array = array.astype(np.float32) / 255
            array = (array - np.array(_IMAGENET_MEAN, np.float32)) / np.array(
                _IMAGENET_DEVIATION, np.float32
            )
        elif self.mode == "caffe":
            array = array.astype(np.float32)[..., ::-1] - np.array(
                (103.939, 116.779, 123.68), np.float32
            )
        return np.ascontiguousarray(array, np.float32) if self.mode else array


@dataclass(frozen=True)
class Reader:
    """Fits arrays of any source to a signature.

    Attributes:
        signature: The model's.
        preparation: What is done to float inputs.
        source: What to call the source in errors.
    """

    signature: Signature
    preparation: Preparation = field(default_factory=Preparation)
    source: str = "the samples"

    def samples(self, inputs: object, targets: object = None) -> Samples:
        """Return inputs and targets by the signature's names, checked and cast.

        Args:
            inputs: An array, a sequence in order, or a mapping by name.
            targets: None, an array (for the first output), a sequence in order, or a mapping by name.

        Raises:
            SamplesError: If anything does not fit: which, and what was expected.
        """
        self._refuse_preparation_of_whole_numbers()
        arrays = {
            spec.name: self._input(spec, array)
            for spec, array in zip(
                self.signature.inputs, self._arranged(inputs).values(), strict=True
            )
        }
        if not next(iter(arrays.values())).shape[:1] or not len(next(iter(arrays.values()))):
            raise SamplesError(f"{self.source} is empty: there is no sample in it.")
        self.signature.check(arrays)
        arrays = {s.name: self._prepared(s, arrays[s.name]) for s in self.signature.inputs}
        for name, array in arrays.items():
            self._refuse_not_finite(f"the input '{name}'", array)
        return Samples(arrays, self._targets(targets, len(next(iter(arrays.values())))))

    def most(self, sample_bytes: int) -> int:
        """Return how many samples of so many bytes are taken from a source that may hold any number."""
        return max(min(MOST_SAMPLES, MOST_BYTES // max(sample_bytes, 1)), 1)

    def _refuse_preparation_of_whole_numbers(self) -> None:
        if self.preparation == Preparation() or any(map(_is_float, self.signature.inputs)):
            return
        raise SamplesError(
            message(
                "scaling and preprocessing are for float inputs, and the model takes none: "
                f"{', '.join(map(str, self.signature.inputs))}.",
                "Give the values as the model takes them, and leave --scale, --input-mean, --input-std and "
                "--preprocess out.",
            )
        )

    def _arranged(self, inputs: object) -> Arrays:
        try:
            return self.signature.arrange(inputs)
        except SamplesError as error:
            raise SamplesError(f"{self.source}: {error}") from None
        except ValueError as error:  # NumPy's, for rows of different lengths
            raise SamplesError(
                f"{self.source}: the inputs can't be read as arrays: {error}"
            ) from None

    def _input(self, spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
        name = spec.name
        if array.dtype == object or array.dtype.kind in "US":
            raise SamplesError(
                message(
                    f"{self.source}: the input '{name}' holds {array.dtype}, not numbers.",
                    "Pickled objects are never read; save plain numeric arrays.",
                    next_step="numpy.savez('val.npz', x=x.astype('float32'), y=y)",
                )
            )
        if array.ndim == len(spec.shape) - 1 and spec.shape[-1] == 1:
            array = array[..., None]  # greyscale images are mostly kept without their channel
        colours = array.shape[1:2] if has_channels_first(spec) else array.shape[-1:]
        if self.preparation.needs_colours and _is_float(spec) and colours != (3,):
            raise SamplesError(
                message(
                    f"{self.source}: the input '{name}' has shape {array.shape}, which has no three colours to "
                    "preprocess.",
                    "The modes torch and caffe are for shapes that end in 3.",
                )
            )
        return array

    def _prepared(self, spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
        """Return what the model takes, made part by part: of much data no more copies than one are ever there."""
        if not _is_float(spec) or self.preparation == Preparation():
            return array.astype(spec.dtype, copy=False)
        prepared = np.empty(array.shape, spec.dtype)
        step = max(_PART // max(array[0].size, 1), 1)
        given, made = array, prepared
        if self.preparation.needs_colours and has_channels_first(spec):
            given, made = np.moveaxis(array, 1, -1), np.moveaxis(prepared, 1, -1)
        for start in range(0, len(array), step):
            made[start : start + step] = self.preparation(given[start : start + step])
        return prepared

    def _targets(self, targets: object, count: int) -> Arrays:
        """Return targets by output name: an array for each of `count` inputs, of finite numbers."""
        if targets is None:
            return {}
        arrays = {name: self._target(name, array) for name, array in self._named(targets).items()}
        for name, array in arrays.items():
            if len(array) != count:
                raise SamplesError(
                    message(
                        f"{self.source}: {len(array)} targets for '{name}' stand beside {count} inputs.",
                        "Every sample needs one target.",
                    )
                )
            self._refuse_not_finite(f"the target '{name}'", array)
        return arrays

    def _named(self, targets: object) -> dict[str, object]:
        names = self.signature.output_names
        if isinstance(targets, Mapping):
            stray = [str(name) for name in targets if name not in names]
            if stray:
                raise SamplesError(
                    f"{self.source}: targets for {stray}, but the model's outputs are {list(names)}."
                )
            return {str(name): array for name, array in targets.items()}
        if not (isinstance(targets, Sequence) and _is_listing(targets)):
            return {names[0]: targets}
        if len(targets) > len(names):
            raise SamplesError(
                message(
                    f"{self.source}: {len(targets)} arrays of targets were given; the model has {len(names)} "
                    f"outputs: {', '.join(map(repr, names))}.",
                    "One array holds the targets of all samples for one output.",
                )
            )
        return dict(zip(names, targets, strict=False))

    def _target(self, name: str, given: object) -> NDArray[Any]:
        try:
            array = np.asarray(given)
        except ValueError as error:  # NumPy's, for rows of different lengths
            raise SamplesError(
                f"{self.source}: the target '{name}' can't be read as an array: {error}"
            ) from None
        if array.dtype.kind not in "biuf":
            raise SamplesError(
                message(
                    f"{self.source}: the target '{name}' holds {array.dtype}, not numbers.",
                    "Classes are numbered from 0, in the order in which the model scores them.",
                    next_step="y = numpy.array([names.index(label) for label in y])",
                )
            )
        if not array.ndim:
            raise SamplesError(
                message(
                    f"{self.source}: the target '{name}' is one number for all samples.",
                    "Every sample needs one target.",
                )
            )
        return array

    def _refuse_not_finite(self, what: str, array: NDArray[Any]) -> None:
        if array.dtype.kind != "f":
            return
        wrong = ~np.isfinite(array)
        if wrong.any():
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise SamplesError(
                message(
                    f"{self.source}: {what} holds {int(wrong.sum())} values that are NaN or infinite, "
                    f"the first at {place}.",
                    "No answer can be judged on those; take them out or fill them in.",
                )
            )


def has_channels_first(spec: TensorSpec) -> bool:
    """Say whether an input is of images whose channels come before height and width, as PyTorch has them."""
    return len(spec.shape) == 4 and spec.shape[1] in (1, 3) and spec.shape[-1] not in (1, 3)


def _is_float(spec: TensorSpec) -> bool:
    return spec.dtype != "str" and np.dtype(spec.dtype).kind == "f"


def _is_listing(targets: Sequence[Any]) -> bool:
    return bool(targets) and all(isinstance(t, np.ndarray) and t.ndim for t in targets)
