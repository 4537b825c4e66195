"""Dividing samples into the four parts that never overlap; and making some up where there are none."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from strop.core.samples import SPLITS, Samples, Splits
from strop.core.signature import Arrays, Shape, Signature
from strop.data.raw import RawSamples

MOST_CALIBRATE = 512
MOST_JUDGED = 5_000
FEW = 100

_SHARES = {"train": 0.4, "calibrate": 0.1, "select": 0.25, "confirm": 0.25}
_UNKNOWN_SIZE = 16


def split(raw: RawSamples, *, seed: int) -> Splits:
    """Divide `raw` once for all: seeded, by class where targets are classes, equal samples together.

    Where the source tells training from testing, the first feeds *train* and *calibrate*, the second
    *select* and *confirm*; else one set is divided 40 : 10 : 25 : 25. *calibrate* takes 512 at most and
    *select* and *confirm* 5,000 each; what is over goes to *train*, or, of test samples, unused.

    Args:
        raw: What was read.
        seed: For the drawing.
    """
    random = np.random.default_rng(seed)
    if raw.whole is not None:
        parts = _divide(raw.whole, _SHARES, random)
        whole = raw.whole
        parts["train"], parts["calibrate"] = _capped(parts, "calibrate", MOST_CALIBRATE)
        for name in ("select", "confirm"):
            parts["train"], parts[name] = _capped(parts, name, MOST_JUDGED)
        chosen = {name: whole.take(np.sort(index)) for name, index in parts.items()}
    else:
        assert raw.train is not None  # noqa: S101 - a source gives a whole, or both parts
        assert raw.test is not None  # noqa: S101
        share = min(0.2, MOST_CALIBRATE / len(raw.train))
        first = _divide(raw.train, {"train": 1 - share, "calibrate": share}, random)
        second = _divide(raw.test, {"select": 0.5, "confirm": 0.5}, random)
        chosen = {
            n: raw.train.take(np.sort(i[:MOST_CALIBRATE] if n == "calibrate" else i))
            for n, i in first.items()
        }
        chosen |= {n: raw.test.take(np.sort(index[:MOST_JUDGED])) for n, index in second.items()}
    train, calibrate, select, confirm = (chosen[name] for name in SPLITS)
    return Splits(train, calibrate, select, confirm, notes=(*raw.notes, *_notes(chosen)))


def _capped(
    parts: dict[str, NDArray[np.intp]], name: str, most: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return *train* with what is over `most` in the part `name`, and that part cut."""
    index = parts[name]
    return np.concatenate([parts["train"], index[most:]]), index[:most]


def _divide(
    samples: Samples, shares: dict[str, float], random: np.random.Generator
) -> dict[str, NDArray[np.intp]]:
    """Return indices by part, in random order: groups of equal samples kept whole, each class shared out alike."""
    groups = _groups_of_equals(samples)
    strata: dict[object, list[list[int]]] = defaultdict(list)
    classes = _classes(samples)
    for group in groups:
        strata[classes[group[0]]].append(group)
    parts: dict[str, list[int]] = {name: [] for name in shares}
    names, wanted = list(shares), np.array(list(shares.values()))
    for _, members in sorted(strata.items(), key=lambda item: str(item[0])):
        order = random.permutation(len(members))
        # Largest deficit first: each next group goes to the part that is furthest below its share.
        counts, start = np.zeros(len(names)), random.random(len(names)) * 1e-6
        for done, position in enumerate(order, 1):
            chosen = int(np.argmax(wanted * done - counts + start))
            counts[chosen] += 1
            parts[names[chosen]].extend(members[position])
    return {name: random.permutation(np.asarray(index, np.intp)) for name, index in parts.items()}


def _groups_of_equals(samples: Samples) -> list[list[int]]:
    groups: dict[bytes, list[int]] = defaultdict(list)
    arrays = [np.ascontiguousarray(array) for array in samples.inputs.values()]
    for index in range(len(samples)):
        key = hashlib.blake2b(digest_size=16)
        for array in arrays:
            key.update(array[index].tobytes())
        groups[key.digest()].append(index)
    return list(groups.values())


def _classes(samples: Samples) -> Sequence[object]:
    for target in samples.targets.values():
        flat = target.reshape(len(target), -1)
        if (
            flat.shape[1] == 1
            and flat.dtype.kind in "iub"
            and len(np.unique(flat)) <= max(len(flat) // 4, 2)
        ):
            return list(flat[:, 0].tolist())
        one_hot = flat.shape[1] > 1 and bool(
            np.all((flat == 0) | (flat == 1)) and np.all(flat.sum(1) == 1)
        )
        if one_hot:
            return list(np.argmax(flat, 1).tolist())
    return [0] * len(samples)


def _notes(parts: dict[str, Samples]) -> list[str]:
    counts = ", ".join(f"{len(parts[name])} to {name}" for name in _SHARES)
    notes = [f"of the samples fell {counts}"]
    for name in ("select", "confirm"):
        count = len(parts[name])
        if count < FEW:
            notes.append(
                f"only {count} samples to {name}: one answer more or less is {1 / max(count, 1):.1%}, "
                "so smaller drops can't be seen"
            )
    if len(parts["calibrate"]) < 16:
        notes.append(
            f"only {len(parts['calibrate'])} samples to calibrate: quantizers' ranges may be off"
        )
    return notes


def synthesize(
    signature: Signature,
    *,
    seed: int,
    count: int = 256,
    shapes: dict[str, Shape] | None = None,
) -> Splits:
    """Return inputs made from the signature alone, where the user gave no samples.

    Floats are standard normal, integers from {0, 1} (any other may be out of a table's range).

    Args:
        signature: The model's.
        seed: For the drawing.
        count: Samples a part; *train* stays empty.
        shapes: Sizes for dimensions that the signature leaves open.
    """
    random = np.random.default_rng(seed)
    narrowed = signature.with_shapes(shapes or {})
    train, calibrate, select, confirm = (
        Samples(_made(narrowed, n, random)) for n in (0, count // 2, count, count)
    )
    return Splits(
        train,
        calibrate,
        select,
        confirm,
        synthetic=True,
        notes=(
            "no samples were given, so inputs were made from the signature. Agreement with the original on "
            "made-up inputs shows that the computation survived; it says little about accuracy on real data, "
            "least of all for quantization, whose ranges were found on made-up inputs too",
        ),
    )


def _made(signature: Signature, count: int, random: np.random.Generator) -> Arrays:
    arrays: Arrays = {}
    for spec in signature.inputs:
        shape = (count, *(_UNKNOWN_SIZE if n is None else n for n in spec.shape[1:]))
        if np.dtype(spec.dtype).kind == "f":
            arrays[spec.name] = random.standard_normal(shape).astype(spec.dtype)
        else:
            arrays[spec.name] = random.integers(0, 2, shape).astype(spec.dtype)
    return arrays
