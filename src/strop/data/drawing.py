"""Samples drawn element by element from what gives them one after the other, or in batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import SamplesError, message
from strop.core.signature import Shape, Signature, TensorSpec
from strop.data.raw import RawSamples, Reader

WEIGHTED = "sample weights were given and are not used"


def draw(source: Iterable[Any], reader: Reader) -> RawSamples:
    """Return what `source` gives until it ends, or there is no more room.

    Args:
        source: Gives inputs, ``(x, y)`` or ``(x, y, sample weights)``: single samples, or batches of any sizes.
        reader: Fits them to the signature.

    Raises:
        SamplesError: If it fails, is empty, or its elements don't go together: which, and what was expected.
    """
    drawn = _Drawn(reader)
    is_stopped = is_weighted = False
    for place, element in enumerate(_elements(source, reader), 1):
        is_stopped = drawn.is_full()
        if is_stopped:
            break
        x, y, has_weights = unpacked(element, reader.signature)
        is_weighted |= has_weights
        drawn.add(place, x, y)
    if not drawn.count:
        raise SamplesError(f"{reader.source} is empty: there is no sample in it.")
    notes = [WEIGHTED] if is_weighted else []
    if is_stopped:
        notes.append(f"drawing stopped at {drawn.count} samples, which is what there is room for")
    return RawSamples(whole=reader.samples(*drawn.joined()), notes=tuple(notes))


def unpacked(given: Any, signature: Signature) -> tuple[Any, Any, bool]:
    """Return inputs, targets (None without), and whether sample weights stood beside them.

    A tuple is ``(x,)``, ``(x, y)`` or ``(x, y, weights)``, as Keras takes it; but three arrays for a model of
    three inputs are those, since one array can't be.
    """
    if not isinstance(given, tuple) or len(given) not in (1, 2, 3):
        return given, None, False
    is_one = not isinstance(given[0], tuple | list | Mapping)
    if len(given) == 3 and len(signature.inputs) == 3 and is_one:
        return given, None, False
    x, y, weights = (*given, None, None)[:3]
    return x, y, weights is not None


def _elements(source: Iterable[Any], reader: Reader) -> Iterator[Any]:
    try:
        yield from source
    except SamplesError:
        raise
    # The source is the user's, so any error may come out of it.
    except Exception as error:  # noqa: BLE001
        raise SamplesError(
            f"{reader.source} failed while they were drawn: {type(error).__name__}: {error}"
        ) from None


@dataclass(frozen=True)
class _Kind:
    """How an element holds its arrays: by these names, or as so many in order, or as one alone."""

    names: tuple[str, ...] | None
    count: int | None

    @classmethod
    def of(cls, value: Any) -> _Kind:
        if isinstance(value, Mapping):
            return cls(tuple(sorted(map(str, value))), None)
        return cls(None, len(value) if isinstance(value, tuple | list) else None)

    def arrays(self, value: Any) -> list[Any]:
        if self.names is not None:
            by_name = {str(name): item for name, item in value.items()}
            return [by_name[name] for name in self.names]
        return list(value) if self.count is not None else [value]

    def again(self, arrays: list[NDArray[Any]]) -> Any:
        """Return `arrays` held as they were."""
        if self.names is not None:
            return dict(zip(self.names, arrays, strict=True))
        return arrays if self.count is not None else arrays[0]


@dataclass
class _Drawn:
    """What was drawn so far: the batches of each array, inputs first."""

    reader: Reader
    count: int = 0
    kinds: tuple[_Kind, _Kind | None] | None = None
    columns: list[list[NDArray[Any]]] = field(default_factory=list)
    most: int = 1

    def is_full(self) -> bool:
        return self.kinds is not None and self.count >= self.most

    def add(self, place: int, x: Any, y: Any) -> None:
        kinds = _Kind.of(x), None if y is None else _Kind.of(y)
        arrays = self._arrays(place, kinds[0].arrays(x))
        if not arrays:
            raise SamplesError(f"{self.reader.source}: element {place} holds no array.")
        if self.kinds is None:
            self.kinds = kinds
        if kinds != self.kinds:
            raise SamplesError(
                message(
                    f"{self.reader.source}: element {place} is made otherwise than the first.",
                    "All elements hold the same inputs, and all of them targets or none.",
                )
            )
        specs = self._specs(kinds[0])
        is_single = _is_single(arrays[0], specs[0])
        if kinds[1] is not None:
            arrays += self._arrays(place, kinds[1].arrays(y))
        batch = [array[None] for array in arrays] if is_single else arrays
        if not all(array.ndim for array in batch):
            raise SamplesError(
                f"{self.reader.source}: element {place} holds one number beside a batch of samples."
            )
        if not self.columns:
            self.columns = [[] for _ in batch]
            self.most = self.reader.most(
                sum(_sample_bytes(a, s) for a, s in zip(batch, specs, strict=False))
            )
        for column, array in zip(self.columns, batch, strict=True):
            column.append(array)
        self.count += len(batch[0])

    def joined(self) -> tuple[Any, Any]:
        """Return inputs and targets (None without) of all elements, which are given up on the way."""
        assert self.kinds is not None  # noqa: S101 - something was drawn
        kind, kind_of_targets = self.kinds
        inputs = len(self._specs(kind))
        whole = [
            self._join(column, "inputs" if place < inputs else "targets")
            for place, column in enumerate(self.columns)
        ]
        targets = None if kind_of_targets is None else kind_of_targets.again(whole[inputs:])
        return kind.again(whole[:inputs]), targets

    def _arrays(self, place: int, values: Sequence[Any]) -> list[NDArray[Any]]:
        try:
            return [np.asarray(value) for value in values]
        # Turning itself into an array is what a user's object may fail at in any way.
        except Exception as error:  # noqa: BLE001
            raise SamplesError(
                f"{self.reader.source}: element {place} can't be read as arrays: {error}"
            ) from None

    def _specs(self, kind: _Kind) -> list[TensorSpec]:
        """Return what is known of each array that holds inputs; of one that fits nothing, the first input's."""
        known = self.reader.signature.inputs
        if kind.names is not None:
            by_name = {spec.name: spec for spec in known}
            return [by_name.get(name, known[0]) for name in kind.names]
        count = 1 if kind.count is None else kind.count
        return [known[place] if place < len(known) else known[0] for place in range(count)]

    def _join(self, parts: list[NDArray[Any]], what: str) -> NDArray[Any]:
        """Return all `parts` in one array; each is given up once it is in, so that there are never two of all."""
        shapes = sorted({part.shape[1:] for part in parts}, key=str)
        if len(shapes) > 1:
            first, second = (
                next(part.shape for part in parts if part.shape[1:] == shape)
                for shape in shapes[:2]
            )
            raise SamplesError(
                message(
                    f"{self.reader.source}: the {what} come in different shapes, {first} and {second}.",
                    "All samples need one shape; a dataset of texts is padded to one length, not each batch to its "
                    "own.",
                    next_step="dataset.padded_batch(32, padded_shapes=...)",
                )
            )
        if len(parts) == 1:
            return parts[0]
        dtype = np.result_type(*{part.dtype for part in parts})
        joined = np.empty((sum(map(len, parts)), *shapes[0]), dtype)
        end = len(joined)
        while parts:
            part = parts.pop()
            joined[end - len(part) : end] = part
            end -= len(part)
        return joined


def _sample_bytes(batch: NDArray[Any], spec: TensorSpec) -> int:
    """Return what one sample comes to as the model takes it, or as it is if that is more."""
    wanted = 1 if spec.dtype == "str" else np.dtype(spec.dtype).itemsize
    return math.prod(batch.shape[1:]) * max(wanted, batch.itemsize)


def _is_single(array: NDArray[Any], spec: TensorSpec) -> bool:
    """Say whether `array` is one sample and no batch of them; its last axis may be missing where that is 1."""
    alone = _fits(array.shape, spec.shape[1:])
    batched = array.ndim > 0 and _fits(array.shape[1:], spec.shape[1:])
    return alone if alone != batched else array.ndim == len(spec.shape) - 1


def _fits(have: tuple[int, ...], want: Shape) -> bool:
    spec = TensorSpec("", want, "")
    return spec.accepts(have) or (want[-1:] == (1,) and spec.accepts((*have, 1)))
