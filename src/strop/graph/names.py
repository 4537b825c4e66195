"""Names told apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def unique(names: Sequence[str]) -> list[str]:
    """Return `names` with numbers behind those that occur more than once.

    Example:
        >>> unique(["a", "b", "a"])
        ['a_0', 'b', 'a_1']
        >>> unique(["a", "a", "a_0"])
        ['a_1', 'a_2', 'a_0']
    """
    often, taken, found = Counter(names), set(names), []
    numbers: Counter[str] = Counter()
    for name in names:
        told = name
        while often[name] > 1 and told in taken:
            told, numbers[name] = f"{name}_{numbers[name]}", numbers[name] + 1
        taken.add(told)
        found.append(told)
    return found
