"""The Pareto frontier: what nothing else beats in every respect."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, ...]]) -> list[int]:
    """Return the indices of the points that no other point dominates, all coordinates being costs.

    A point dominates another that it equals or betters in every coordinate and betters in one. Of equal
    points all stay.

    Example:
        >>> pareto_front([(1.0, 5.0), (2.0, 2.0), (3.0, 3.0), (4.0, 1.0)])
        [0, 1, 3]
    """
    return [
        index
        for index, point in enumerate(points)
        if not any(_dominates(other, point) for other in points)
    ]


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
