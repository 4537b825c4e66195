"""Samples: the user's data as arrays, in four splits that never overlap."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core import digest
from strop.core.signature import Arrays

SPLITS = ("train", "calibrate", "select", "confirm")


@dataclass(frozen=True)
class Samples:
    """Inputs by name, and targets by output name where there are any; the first axis counts samples.

    Attributes:
        inputs: Arrays by the signature's input names, all of one length.
        targets: Arrays by the signature's output names (not every output needs one); empty without.
    """

    inputs: Arrays
    targets: Arrays = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values()))) if self.inputs else 0

    def take(self, chosen: NDArray[np.intp] | slice) -> Samples:
        """Return the chosen samples."""
        return Samples(
            {name: array[chosen] for name, array in self.inputs.items()},
            {name: array[chosen] for name, array in self.targets.items()},
        )

    def head(self, count: int) -> Samples:
        """Return the first `count` samples."""
        return self.take(slice(0, count))

    def joined(self, other: Samples) -> Samples:
        """Return these samples with those of `other` behind them; what the other has no targets for has none."""
        return Samples(
            {
                name: np.concatenate([array, other.inputs[name]])
                for name, array in self.inputs.items()
            },
            {
                name: np.concatenate([array, other.targets[name]])
                for name, array in self.targets.items()
                if name in other.targets
            },
        )

    def batches(self, size: int) -> Iterator[Arrays]:
        """Yield the inputs in batches of `size`; the last may be smaller."""
        for start in range(0, len(self), size):
            yield {name: array[start : start + size] for name, array in self.inputs.items()}

    def full_batches(self, size: int) -> Iterator[Arrays]:
        """Yield the inputs in batches of exactly `size`; the first samples again where the last has places left.

        For models that take no other size.
        """
        for start in range(0, len(self), size):
            # Twenty samples come three times and a bit in a batch of sixty-four.
            chosen = np.arange(start, start + size) % len(self)
            yield {name: array[chosen] for name, array in self.inputs.items()}

    def digest(self) -> str:
        """Return the digest of all that is in here."""
        return digest.of_value([digest.of_arrays(self.inputs), digest.of_arrays(self.targets)])

    def save(self, folder: Path) -> None:
        """Write the arrays beneath `folder`, one ``.npy`` each, so that workers can map them."""
        folder.mkdir(parents=True, exist_ok=True)
        index: dict[str, dict[str, str]] = {"inputs": {}, "targets": {}}
        for kind, arrays in (("inputs", self.inputs), ("targets", self.targets)):
            for position, (name, array) in enumerate(arrays.items()):
                file = f"{kind}{position}.npy"
                np.save(folder / file, array, allow_pickle=False)
                index[kind][name] = file
        (folder / "samples.json").write_text(json.dumps(index))

    @classmethod
    def load(cls, folder: Path) -> Samples:
        """Return what `save` wrote, mapped and not read."""
        index: Mapping[str, Mapping[str, str]] = json.loads((folder / "samples.json").read_text())
        inputs, targets = (
            {n: _mapped(folder / file) for n, file in index[kind].items()}
            for kind in ("inputs", "targets")
        )
        return cls(inputs, targets)


def _mapped(file: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except ValueError:  # an empty array can't be mapped
        array = np.load(file, allow_pickle=False)
    return array


@dataclass(frozen=True)
class Splits:
    """The four parts of the user's samples; no sample is in two of them.

    Attributes:
        train: For fine-tuning.
        calibrate: For quantizers' ranges, and for the rankings that passes make.
        select: What the search looks at.
        confirm: Looked at once, for the figures in the report.
        synthetic: Whether the inputs were made from the signature and nobody's data stands behind them.
        notes: Sentences for the report: how many fell where, what is too few.
    """

    train: Samples
    calibrate: Samples
    select: Samples
    confirm: Samples
    synthetic: bool = False
    notes: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return the digest of all four parts."""
        return digest.of_value([getattr(self, name).digest() for name in SPLITS])

    def save(self, folder: Path) -> None:
        """Write the four parts beneath `folder`."""
        for name in SPLITS:
            getattr(self, name).save(folder / name)
        facts = {"synthetic": self.synthetic, "notes": list(self.notes)}
        (folder / "splits.json").write_text(json.dumps(facts))

    @classmethod
    def load(cls, folder: Path) -> Splits:
        """Return what `save` wrote, mapped and not read."""
        facts = json.loads((folder / "splits.json").read_text())
        train, calibrate, select, confirm = (Samples.load(folder / name) for name in SPLITS)
        return cls(train, calibrate, select, confirm, facts["synthetic"], tuple(facts["notes"]))
