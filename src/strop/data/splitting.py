"""Dividing samples into the four parts that never overlap, or not at all; and making some up where there are none."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import SamplesError, message
from strop.core.samples import SPLITS, Samples, Splits
from strop.core.signature import Arrays, Shape, Signature, TensorSpec
from strop.data.raw import RawSamples

MOST_CALIBRATE = 512
MOST_JUDGED = 5_000
FEW = 100

_SHARES = {"train": 0.25, "calibrate": 0.25, "select": 0.25, "confirm": 0.25}
_TINY = 1e-6  # below it, what is left of a share is float rounding: 0.1 * 30 is 3.0000000000000004


def split(raw: RawSamples, *, seed: int) -> Splits:
    """Divide `raw` once for all: seeded, by class where targets are classes, equal samples together.

    Where the source tells training from testing, the first feeds *train* and *calibrate*, the second
    *select* and *confirm*; else one set is divided in four. Each two share theirs half and half, but
    *calibrate* takes 512 at most and *select* and *confirm* 5,000 each; what is over goes to *train*,
    or, of test samples, unused. So where samples are few, ranges are found on as many as can be had:
    a quantized model of too few is the likeliest to miss its limit on *confirm*.
    Samples that the source has in both stay in both, and a note says how many.
    Within each part the order is random, with the classes spread alike, so that a part's first samples
    stand for all of it.

    Args:
        raw: What was read.
        seed: For the drawing.

    Raises:
        SamplesError: If there are too few for *calibrate*, *select* and *confirm* to hold one each.
    """
    random, told = np.random.default_rng(seed), list(raw.notes)
    if raw.whole is not None:
        parts = _divide(raw.whole, _digests(raw.whole), _SHARES, random)
        parts["train"], parts["calibrate"] = _capped(parts, "calibrate", MOST_CALIBRATE)
        for name in ("select", "confirm"):
            parts["train"], parts[name] = _capped(parts, name, MOST_JUDGED)
        chosen = {name: raw.whole.take(index) for name, index in parts.items()}
    else:
        assert raw.train is not None  # noqa: S101 - a source gives a whole, or both parts
        assert raw.test is not None  # noqa: S101
        seen, unseen = _digests(raw.train), _digests(raw.test)
        told += _in_both(seen, unseen)
        share = min(0.5, MOST_CALIBRATE / len(raw.train))
        first = _divide(raw.train, seen, {"train": 1 - share, "calibrate": share}, random)
        first["train"], first["calibrate"] = _capped(first, "calibrate", MOST_CALIBRATE)
        second = _divide(raw.test, unseen, {"select": 0.5, "confirm": 0.5}, random)
        chosen = {name: raw.train.take(index) for name, index in first.items()}
        chosen |= {name: raw.test.take(index[:MOST_JUDGED]) for name, index in second.items()}
    train, calibrate, select, confirm = (chosen[name] for name in SPLITS)
    return Splits(train, calibrate, select, confirm, notes=(*told, *_notes(chosen)))


def undivided(raw: RawSamples) -> Samples:
    """Return what can be judged on where nothing is made or chosen: all samples, or those for testing."""
    samples = raw.test if raw.whole is None else raw.whole
    assert samples is not None  # noqa: S101 - a source gives a whole, or both parts
    return samples


def _capped(
    parts: dict[str, NDArray[np.intp]], name: str, most: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return *train* with what is over `most` in the part `name`, and that part cut."""
    index = parts[name]
    return np.concatenate([parts["train"], index[most:]]), index[:most]


def _divide(
    samples: Samples,
    digests: list[bytes],
    shares: dict[str, float],
    random: np.random.Generator,
) -> dict[str, NDArray[np.intp]]:
    """Return indices by part: groups of equal samples kept whole, each class shared out and spread alike.

    Raises:
        SamplesError: If there are too few groups for every part but *train* to hold one.
    """
    groups, classes = _groups_of_equals(digests), _classes(samples)
    needed = [name for name in shares if name != "train"]
    if len(groups) < len(needed):
        raise _too_few(len(groups), needed)
    parts = _shared_out(groups, classes, shares, random)
    for name in needed:
        if not parts[name]:
            # The fullest can spare one: with as many groups as needed parts, it is *train* or has two.
            fullest = max(parts.values(), key=len)
            parts[name].append(fullest.pop())
    return {
        name: _spread(np.array([i for group in part for i in group], np.intp), classes, random)
        for name, part in parts.items()
    }


def _shared_out(
    groups: list[list[int]],
    classes: NDArray[Any],
    shares: dict[str, float],
    random: np.random.Generator,
) -> dict[str, list[list[int]]]:
    """Return groups by part: of each class its share, rounded so that the parts keep theirs over all classes."""
    strata: dict[Any, list[list[int]]] = defaultdict(list)
    for group in groups:
        strata[classes[group[0]]].append(group)
    parts: dict[str, list[list[int]]] = {name: [] for name in shares}
    wanted = np.array(list(shares.values()))
    # What rounding still owes each part is carried from class to class: classes of one or two samples
    # would else all round the same way, and a part with a small share would get none of any.
    owed = random.random(len(wanted)) * _TINY
    for _, members in sorted(strata.items()):
        exact = wanted * len(members)
        counts = np.floor(exact + _TINY).astype(int)
        owed += exact - counts
        rounded = np.where(exact - counts > _TINY, owed, -np.inf)
        most_owed = np.argsort(-rounded, kind="stable")[: len(members) - counts.sum()]
        counts[most_owed] += 1
        owed[most_owed] -= 1
        order = random.permutation(len(members))
        for part, places in zip(
            parts.values(), np.split(order, np.cumsum(counts)[:-1]), strict=True
        ):
            part += [members[place] for place in places]
    return parts


def _spread(
    index: NDArray[np.intp], classes: NDArray[Any], random: np.random.Generator
) -> NDArray[np.intp]:
    """Return `index` in a random order any head of which has the classes in the shares of the whole."""
    index = random.permutation(index)
    _, label, counts = np.unique(classes[index], return_inverse=True, return_counts=True)
    by_class = np.argsort(label, kind="stable")
    within = np.empty(len(index))
    within[by_class] = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = (within + random.random(len(counts))[label]) / counts[label]
    return index[np.argsort(places, kind="stable")]


def _too_few(count: int, needed: Sequence[str]) -> SamplesError:
    are = "sample is" if count == 1 else "samples are"
    return SamplesError(
        message(
            f"{count} different {are} there, and {len(needed)} are needed: one each to "
            f"{', '.join(needed[:-1])}{' and ' if needed[:-1] else ''}{needed[-1]}.",
            "Equal samples count once, since they stay together; a few hundred tell small drops apart.",
        )
    )


def _digests(samples: Samples) -> list[bytes]:
    """Return a digest of each sample's inputs: equal samples have equal ones."""
    arrays = [np.ascontiguousarray(samples.inputs[name]) for name in sorted(samples.inputs)]
    return [
        hashlib.blake2b(
            b"".join(array[index].tobytes() for array in arrays), digest_size=16
        ).digest()
        for index in range(len(samples))
    ]


def _groups_of_equals(digests: Sequence[bytes]) -> list[list[int]]:
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        groups[digest].append(index)
    return list(groups.values())


def _in_both(train: Sequence[bytes], test: Sequence[bytes]) -> list[str]:
    """Return what is to be told of samples for testing that are for training too."""
    known = set(train)
    both = sum(digest in known for digest in test)
    if not both:
        return []
    return [
        f"{both} of the {len(test)} samples for testing are among those for training too, so that figures may look "
        "better than on samples that are new"
    ]


def _classes(samples: Samples) -> NDArray[Any]:
    """Return a class for each sample, from the first targets that are classes; one for all without."""
    for target in samples.targets.values():
        flat = target.reshape(len(target), -1)
        # More different numbers than half the samples are figures and no classes.
        if (
            flat.shape[1] == 1
            and _are_whole(flat)
            and len(np.unique(flat)) <= max(len(flat) // 2, 2)
        ):
            return np.asarray(flat[:, 0])
        one_hot = flat.shape[1] > 1 and bool(
            np.all((flat == 0) | (flat == 1)) and np.all(flat.sum(1) == 1)
        )
        if one_hot:
            return np.asarray(np.argmax(flat, 1))
    return np.zeros(len(samples), int)


def _are_whole(numbers: NDArray[Any]) -> bool:
    """Say whether all are whole numbers, also those that are written as floats, as Keras' binary labels are."""
    kind = numbers.dtype.kind
    return kind in "iub" or (kind == "f" and bool(np.all(numbers == np.floor(numbers))))


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

    Floats are standard normal. Integers of 8 bits take their whole range, being pixels or codes; wider ones are
    from {0, 1}, since any other may be out of a table's range.

    Args:
        signature: The model's.
        seed: For the drawing.
        count: Samples a part; *train* stays empty.
        shapes: Sizes for dimensions that the signature leaves open.

    Raises:
        SamplesError: If a dimension besides the batch is still open.
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
    _refuse_free_dimensions(signature)
    arrays: Arrays = {}
    for spec in signature.inputs:
        shape, dtype = (count, *(n or 0 for n in spec.shape[1:])), np.dtype(spec.dtype)
        if dtype.kind == "f":
            arrays[spec.name] = random.standard_normal(shape).astype(dtype)
        elif dtype.kind in "iu" and dtype.itemsize == 1:
            limits = np.iinfo(dtype)
            arrays[spec.name] = random.integers(
                limits.min, limits.max, shape, dtype, endpoint=True
            )
        else:
            arrays[spec.name] = random.integers(0, 2, shape).astype(dtype)
    return arrays


def _refuse_free_dimensions(signature: Signature) -> None:
    """Refuse to guess a size: timings at any other are another model's, and some sizes don't run at all."""
    free: dict[str, list[int]] = defaultdict(list)
    for name, axis in signature.free_dimensions():
        free[name].append(axis)
    if not free:
        return
    where = "; ".join(
        f"{'axis' if len(axes) == 1 else 'axes'} {' and '.join(map(str, axes))} of the input '{name}'"
        for name, axes in free.items()
    )
    shapes = " ".join(
        f"--shape {spec.name}={_example(spec)}" for spec in signature.inputs if spec.name in free
    )
    raise SamplesError(
        message(
            f"without samples nothing tells how long these are: {where}.",
            "Give samples with --data, or the shapes that the model is used with, such as:",
            next_step=shapes,
        )
    )


def _example(spec: TensorSpec) -> str:
    usual = 224 if len(spec.shape) == 4 else 128
    return ",".join(map(str, (1, *(usual if n is None else n for n in spec.shape[1:]))))
