"""The tables of what was measured: what was asked beside it, the mean, each seed, and paired intervals."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.compression.answers import Right, gain, read
from benchmarks.compression.beside import SPARSITIES, TECHNIQUES, TOOLS, Beside, Pace
from benchmarks.compression.rows import (
    AFTERWARDS,
    ALONE,
    AWARE,
    DISTILLED,
    ENGINES,
    ROWS,
    Row,
)
from benchmarks.compression.scale import SEEDS
from strop.numerics.statistics import Interval, ratio_interval

_LOST_TO_STATIC = -0.5  # points: what the interval of the gain has to lie above
_TAUGHT_BETTER = 1.0  # points
_SLOWEST = 1.1
_INTEGERS = {"int8", "uint8", "i8", "u8"}  # as LiteRT and OpenVINO call them

Figures = Sequence[dict[str, Any]]


def tables(folder: Path) -> list[str]:
    """Return the lines on what training makes of networks, a table for each kind of question.

    Args:
        folder: Of the figures that are no matter of the machine.
    """
    return _titled(
        folder,
        (
            "Smaller by training",
            "Accuracy on all test images; drops and their paired intervals (95 %) in points, of the mean over seeds.",
            _smaller,
        ),
        (
            "Quantized while it is taught, and afterwards",
            "Each exported model in its engine, on the same test samples; in points, with the paired interval (95 %) "
            "of the mean over seeds.",
            _quantized,
        ),
        (
            "A student, taught by the original and alone",
            "Derived with half of the original's multiply-accumulates at most; the same weights to begin with, samples, "
            "epochs and order.",
            _students,
        ),
        (
            "Pruned beside tfmot",
            "strop on Keras 3, without a teacher, and tfmot on legacy Keras: the same network, samples, schedule, rate "
            "and epochs, the weights of the last.",
            _beside,
        ),
    )


def pace_tables(folder: Path) -> list[str]:
    """Return the lines on how long training takes.

    Args:
        folder: Of a machine's figures.
    """
    told = "Seconds of an epoch without a teacher against plain `fit` in the same Keras, in turns."
    return _titled(folder, ("What training costs", told, _paced))


def _titled(folder: Path, *asked: tuple[str, str, Callable[[Path], list[str]]]) -> list[str]:
    """Return tables with titles, and what there is to tell of each, where there are figures."""
    lines = []
    for title, told, table in asked:
        found = table(folder)
        if found:
            lines += [f"### {title}", "", told, "", *found, ""]
    return lines


def figures_of(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return what was measured of a row, a seed after the other."""
    files = [folder / f"{name}-{seed}.json" for seed in SEEDS]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def _smaller(folder: Path) -> list[str]:
    rows = [
        line
        for row in ROWS
        if (found := figures_of(folder, row.name)) and not _is_compared(found)
        for way in found[0]["made"]
        for line in [_smaller_line(row, way, found)]
    ]
    head = [
        "| network | what | runs in | in integers | seeds | original | accuracy | drop: mean (each) | interval | asked "
        "| zipped, times smaller | asked |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    return [*head, *rows] if rows else []


def _smaller_line(row: Row, way: str, found: Figures) -> str:
    before, after = _rights(found, "original"), _rights(found, "made", way)
    lost = gain(before, after)
    smaller = mean(one["original"]["zipped"] / one["made"][way]["zipped"] for one in found)
    cells = [
        row.original.title,
        row.title,
        way.split()[-1],
        _integers(found[0]["made"][way]),
        len(found),
        _percent(before),
        _percent(after),
        _with_each(lost.value, after, before, sign=-1),
        f"{lost.low:.2f} to {lost.high:.2f}",
        "" if row.most_drop is None else f"≤ {row.most_drop}",
        f"{smaller:.2f}",
        "" if row.least_smaller is None else f"≥ {row.least_smaller}",
    ]
    return _line(cells)


def _quantized(folder: Path) -> list[str]:
    pairs = [(f"{AWARE} {engine}", f"{AFTERWARDS} {engine}") for engine in ENGINES]
    return _compared(
        folder, pairs, "taught", "afterwards",
        f"interval above {_LOST_TO_STATIC}", lambda gained: gained.low > _LOST_TO_STATIC,
    )  # fmt: skip


def _students(folder: Path) -> list[str]:
    return _compared(
        folder, [(DISTILLED, ALONE)], "by the original", "alone",
        f"gain ≥ {_TAUGHT_BETTER}", lambda gained: gained.value >= _TAUGHT_BETTER,
    )  # fmt: skip


def _compared(
    folder: Path,
    pairs: Sequence[tuple[str, str]],
    ours: str,
    other: str,
    asked: str,
    is_kept: Callable[[Interval], bool],
) -> list[str]:
    """Return the table of the rows in which both ways of a pair were measured.

    Args:
        folder: Of the figures.
        pairs: The way that is to be better, and the other.
        ours: The first's title.
        other: The second's.
        asked: What is asked of the gain, in words.
        is_kept: Says whether a gain is as asked.
    """
    rows = []
    for row in ROWS:
        found = figures_of(folder, row.name)
        for one, than in pairs:
            if found and {one, than} <= set(found[0]["made"]):
                after, before = _rights(found, "made", one), _rights(found, "made", than)
                gained = gain(after, before)
                cells = [
                    row.original.title,
                    one.split()[-1],
                    _integers(found[0]["made"][one]),
                    len(found),
                    _percent(_rights(found, "original")),
                    _percent(before),
                    _percent(after),
                    _with_each(gained.value, after, before),
                    f"{gained.low:.2f} to {gained.high:.2f}",
                    "yes" if is_kept(gained) else "no",
                ]
                rows.append(_line(cells))
    head = [
        f"| network | runs in | in integers | seeds | original | {other} | {ours} | gain: mean (each) | interval | asked: {asked} |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    return [*head, *rows] if rows else []


def _beside(folder: Path) -> list[str]:
    rows = []
    for sparsity in SPARSITIES:
        found = figures_of(folder, Beside(sparsity).name)
        if not found:
            continue
        ours, theirs = (_rights(found, tool) for tool in TOOLS)
        gained = gain(ours, theirs)
        zeros = [f"{mean(one[tool]['zeros'] for one in found):.1%}" for tool in TOOLS]
        cells = [
            f"{sparsity:.0%}",
            len(found),
            *zeros,
            _percent(ours),
            _percent(theirs),
            _with_each(gained.value, ours, theirs),
            f"{gained.low:.2f} to {gained.high:.2f}",
        ]
        rows.append(_line(cells))
    head = [
        "| ResNet-8, CIFAR-10, to | seeds | zeros: strop | tfmot | accuracy: strop | tfmot | gain: mean (each) | "
        "interval |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    return [*head, *rows] if rows else []


def _paced(folder: Path) -> list[str]:
    found = figures_of(folder, Pace().name)
    if not found:
        return []
    rows = []
    for tool in TOOLS:
        seconds = {
            technique: [took for one in found for took in one["epochs"][f"{tool} {technique}"]]
            for technique in TECHNIQUES
        }
        plain = seconds["plain"]
        ratios = [ratio_interval(seconds[technique], plain) for technique in TECHNIQUES[1:]]
        asked = f"≤ {_SLOWEST}" if tool == TOOLS[0] else ""
        rows.append(_line([tool, len(plain), f"{mean(plain):.2f}", *map(_ratio, ratios), asked]))
    return [
        "| ResNet-8, CIFAR-10 | rounds | plain, s | pruning / plain | clustering / plain | asked |",
        "|---|--:|--:|--:|--:|--:|",
        *rows,
    ]


def _is_compared(found: Figures) -> bool:
    """Say whether its ways are compared with each other, and not with the original."""
    return any(way == ALONE or AFTERWARDS in way for way in found[0]["made"])


def _integers(made: Mapping[str, Any]) -> str:
    """Return how many of the layers with weights compute with integers, where the engine told."""
    kernels: Mapping[str, int] = made["kernels"]
    if not kernels:
        return ""
    whole = sum(count for name, count in kernels.items() if name in _INTEGERS)
    return f"{whole} of {sum(kernels.values())}"


def _rights(found: Figures, *where: str) -> list[Right]:
    """Return the right answers that each seed has at a place in its figures."""
    rights = []
    for one in found:
        for key in where:
            one = one[key]
        rights.append(read(one["right"]))
    return rights


def _percent(rights: Sequence[Right]) -> str:
    return f"{100 * mean(float(right.mean()) for right in rights):.2f}"


def _with_each(
    value: float, after: Sequence[Right], before: Sequence[Right], sign: int = 1
) -> str:
    """Return a mean and, in brackets, by how many points each seed is above what it is compared with."""
    each = [
        100 * sign * float(one.mean() - other.mean())
        for one, other in zip(after, before, strict=True)
    ]
    return f"{value:.2f} ({', '.join(f'{by:.2f}' for by in each)})"


def _ratio(ratio: Interval) -> str:
    return f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
