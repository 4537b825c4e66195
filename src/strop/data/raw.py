"""Samples as they were read, before they are checked against a signature and split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import ParameterError, SamplesError, message
from strop.core.samples import Samples
from strop.core.signature import Arrays, Signature

PREPROCESSING = ("tf", "torch", "caffe")


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

    def each(self, change: Callable[[Samples], Samples]) -> RawSamples:
        """Return the same with every part changed."""
        whole, train, test = (
            change(part) if part else None for part in (self.whole, self.train, self.test)
        )
        return replace(self, whole=whole, train=train, test=test)


@dataclass(frozen=True)
class Preparation:
    """What is done to float inputs before the model sees them.

    Attributes:
        scale: A factor (``1/255``); None for none.
        mode: One of Keras' `preprocess_input` modes, for pixels in 0..255: ``tf`` (to −1..1), ``torch``
            (to 0..1, then ImageNet's mean and deviation), ``caffe`` (to BGR, less ImageNet's mean); or None.
    """

    scale: float | None = None
    mode: str | None = None

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in PREPROCESSING:
            raise ParameterError(
                f"preprocess must be one of {', '.join(PREPROCESSING)}, not {self.mode!r}"
            )

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return `array` prepared; the same object where there is nothing to do."""
        if self.scale is not None:
            array = (array.astype(np.float32) * np.float32(self.scale)).astype(np.float32)
        if self.mode == "tf":
            array = array.astype(np.float32) / np.float32(127.5) - np.float32(1)
        elif self.mode == "torch":
            mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
            array = (array.astype(np.float32) / 255 - np.array(mean, np.float32)) / np.array(
                deviation, np.float32
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
        arrays = {name: self._input(name, array) for name, array in self._arranged(inputs).items()}
        if not next(iter(arrays.values())).shape[:1] or not len(next(iter(arrays.values()))):
            raise SamplesError(f"{self.source} is empty: there is no sample in it.")
        self.signature.check(arrays)
        arrays = {
            spec.name: arrays[spec.name].astype(spec.dtype, copy=False)
            for spec in self.signature.inputs
        }
        for name, array in arrays.items():
            self._refuse_not_finite(f"the input '{name}'", array)
        return Samples(arrays, self._targets(targets, len(next(iter(arrays.values())))))

    def _arranged(self, inputs: object) -> Arrays:
        try:
            return self.signature.arrange(inputs)
        except SamplesError as error:
            raise SamplesError(f"{self.source}: {error}") from None

    def _input(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        if array.dtype == object or array.dtype.kind in "US":
            raise SamplesError(
                message(
                    f"{self.source}: the input '{name}' holds {array.dtype}, not numbers.",
                    "Pickled objects are never read; save plain numeric arrays.",
                    next_step="numpy.savez('val.npz', x=x.astype('float32'), y=y)",
                )
            )
        spec = next(s for s in self.signature.inputs if s.name == name)
        if array.ndim == len(spec.shape) - 1 and spec.shape[-1] == 1:
            array = array[..., None]  # greyscale images are mostly kept without their channel
        return self.preparation(array) if np.dtype(spec.dtype).kind == "f" else array

    def _targets(self, targets: object, count: int) -> Arrays:
        if targets is None:
            return {}
        names = self.signature.output_names
        if isinstance(targets, Mapping):
            stray = [str(name) for name in targets if name not in names]
            if stray:
                raise SamplesError(
                    f"{self.source}: targets for {stray}, but the model's outputs are {list(names)}."
                )
            arrays = {str(name): np.asarray(array) for name, array in targets.items()}
        elif (
            isinstance(targets, Sequence) and not isinstance(targets, str) and _is_listing(targets)
        ):
            arrays = dict(zip(names, map(np.asarray, targets), strict=False))
        else:
            arrays = {names[0]: np.asarray(targets)}
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


def _is_listing(targets: Sequence[Any]) -> bool:
    return bool(targets) and all(isinstance(t, np.ndarray) and t.ndim for t in targets)
