"""The contract that every pass keeps: what goes in, what comes out, under the original's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import SamplesError, message

Shape = tuple[int | None, ...]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """One logical input or output as the original has it.

    Attributes:
        name: The original's name.
        shape: Its dimensions, the batch first; None where the size is free.
        dtype: NumPy's name of the element type (``float32``, ``int64``; ``str`` for strings).
    """

    name: str
    shape: Shape
    dtype: str

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{','.join('?' if n is None else str(n) for n in self.shape)}]"

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Say whether an array of `shape` may be given here."""
        return len(shape) == len(self.shape) and all(
            want is None or want == have for want, have in zip(self.shape, shape, strict=True)
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` takes back."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorSpec:
        """Return what `to_json` was called on."""
        return cls(str(data["name"]), tuple(data["shape"]), str(data["dtype"]))


@dataclass(frozen=True)
class Signature:
    """The logical inputs and outputs of a model, in order.

    These hold for every signature: names are unique within the inputs and within the outputs, and the
    first dimension of every input is the batch.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.inputs))}) -> ({', '.join(map(str, self.outputs))})"

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs' names in order."""
        return tuple(spec.name for spec in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs' names in order."""
        return tuple(spec.name for spec in self.outputs)

    @property
    def batch(self) -> int | None:
        """The one batch size that the model takes; None where any is taken."""
        sizes = {spec.shape[0] for spec in self.inputs if spec.shape}
        return next(iter(sizes)) if len(sizes) == 1 else None

    def free_dimensions(self) -> list[tuple[str, int]]:
        """Return (input name, axis) of every unknown dimension besides the batch."""
        return [
            (spec.name, axis)
            for spec in self.inputs
            for axis, size in enumerate(spec.shape)
            if axis > 0 and size is None
        ]

    def with_shapes(self, shapes: Mapping[str, Shape]) -> Signature:
        """Return the signature with the inputs' shapes replaced where `shapes` names them."""
        return replace(
            self,
            inputs=tuple(replace(s, shape=shapes.get(s.name, s.shape)) for s in self.inputs),
        )

    def arrange(self, inputs: object) -> Arrays:
        """Return `inputs` as arrays by name, in the signature's order.

        Args:
            inputs: An array (one input), a sequence in order, or a mapping by name.

        Raises:
            SamplesError: If names or numbers don't match.
        """
        if isinstance(inputs, Mapping):
            missing = [name for name in self.input_names if name not in inputs]
            stray = [str(name) for name in inputs if name not in self.input_names]
            if missing or stray:
                raise SamplesError(
                    message(
                        f"the inputs are named {_listing(inputs)}; the model takes "
                        f"{_listing(self.input_names)}."
                    )
                )
            return {name: np.asarray(inputs[name]) for name in self.input_names}
        if isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes):
            arrays = list(inputs)
        else:
            arrays = [inputs]
        if len(arrays) != len(self.inputs):
            raise SamplesError(
                message(
                    f"{len(arrays)} input arrays were given; the model takes {len(self.inputs)}: "
                    f"{_listing(self.input_names)}."
                )
            )
        return {spec.name: np.asarray(a) for spec, a in zip(self.inputs, arrays, strict=True)}

    def check(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Hold `arrays` (by name) to the inputs' shapes and kinds.

        Raises:
            SamplesError: Which array is wrong, how, and what was expected.
        """
        lengths = {name: len(a) for name, a in arrays.items() if a.ndim}
        if len(set(lengths.values())) > 1:
            raise SamplesError(message(f"the inputs have different lengths: {lengths}."))
        for spec in self.inputs:
            array = arrays[spec.name]
            shape = array.shape
            if not replace(spec, shape=(None, *spec.shape[1:])).accepts(shape):
                raise SamplesError(
                    message(
                        f"the input '{spec.name}' has shape {shape}.",
                        f"The model takes {spec}, the first dimension being the batch.",
                    )
                )
            wanted = np.dtype(spec.dtype)
            if not _fits(array, wanted):
                raise SamplesError(
                    message(
                        f"the input '{spec.name}' has dtype {array.dtype}.",
                        f"The model takes {spec.dtype}, and casting would lose what is there.",
                    )
                )

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` takes back."""
        return {
            "inputs": [s.to_json() for s in self.inputs],
            "outputs": [s.to_json() for s in self.outputs],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Signature:
        """Return what `to_json` was called on."""
        return cls(
            tuple(TensorSpec.from_json(s) for s in data["inputs"]),
            tuple(TensorSpec.from_json(s) for s in data["outputs"]),
        )


def _fits(array: NDArray[Any], wanted: np.dtype[Any]) -> bool:
    """Say whether `array` can be cast and keep what it holds: integers by their values, others by their dtype."""
    if array.dtype == wanted:
        return True
    if array.dtype.kind in "iu" and wanted.kind in "iu" and array.size:
        limits = np.iinfo(wanted)
        return bool(array.min() >= limits.min and array.max() <= limits.max)
    if array.dtype.kind in "iub" and wanted.kind == "f":
        return True
    return bool(np.can_cast(array.dtype, wanted, "same_kind"))


def _listing(names: object) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing"  # type: ignore[attr-defined]
