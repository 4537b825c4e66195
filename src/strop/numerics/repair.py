"""Which of a ranked list must be left out, in as few tries as it takes.

Quantizing a network may cost too much quality because of a few layers. Given the layers ranked by how much they hurt,
the first k left in float are sought, k being the smallest for which the limit holds: doubling k until it does, then
halving the gap, so that some 2·log₂(k) tries find it. Rankings are estimates, so a few more tries then see whether one of
those k was kept for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


def fewest_left_out(
    ranked: Sequence[str],
    holds: Callable[[tuple[str, ...]], bool],
    *,
    refinements: int = 4,
) -> tuple[str, ...] | None:
    """Return the items to leave out so that `holds`, as few as can be found; None where nothing helps.

    Args:
        ranked: All items, those that hurt most first.
        holds: Whether the limit holds with these left out; dear, called as seldom as possible.
        refinements: How many more tries to spend on putting single items back.

    Example:
        >>> fewest_left_out("abcdefgh", lambda kept: {"a", "c"} <= set(kept))
        ('a', 'c')
    """
    count = _smallest_prefix(len(ranked), lambda k: holds(tuple(ranked[:k])))
    if count is None:
        return None
    kept = tuple(ranked[:count])
    # The last of the prefix is needed, or a shorter one would have held; the others may not be.
    for item in kept[-2 : -2 - refinements : -1]:
        fewer = tuple(other for other in kept if other != item)
        if holds(fewer):
            kept = fewer
    return kept


def _smallest_prefix(length: int, holds: Callable[[int], bool]) -> int | None:
    """Return the smallest k in 1..length that holds, supposing that more never hold less; None where none does."""
    failed, reach = 0, 1
    while reach < length and not holds(reach):
        failed, reach = reach, min(reach * 2, length)
    if reach >= length and not holds(length):
        return None
    reach = min(reach, length)
    while reach - failed > 1:
        middle = (failed + reach) // 2
        if holds(middle):
            reach = middle
        else:
            failed = middle
    return reach


def errors_alone(
    names: Sequence[str],
    error_leaving: Callable[[tuple[str, ...]], float],
    *,
    trials: int = 32,
) -> list[tuple[str, float]]:
    """Return the error of the answers with each layer quantized and all others left in float.

    What a layer's own output loses says little: one that feeds a softmax hurts the answers far more than another
    that loses as much, and where an engine fuses two there is no output to compare. Only the answers tell.

    Args:
        names: The layers, in the order in which they run.
        error_leaving: The answers' error with the named layers in float and the others quantized; dear.
        trials: Most times to ask; where there are more layers, neighbours are quantized together and share an error.

    Example:
        >>> errors_alone("abc", lambda left: 0.1 * (3 - len(left)), trials=2)
        [('a', 0.2), ('b', 0.2), ('c', 0.1)]
    """
    width = -(-len(names) // trials)
    found = []
    for start in range(0, len(names), width or 1):
        together = names[start : start + width]
        error = error_leaving(tuple(name for name in names if name not in together))
        found += [(name, error) for name in together]
    return found


def rank_by_error(errors: Sequence[tuple[str, float]]) -> list[str]:
    """Return names in order of the error that each causes by itself, most first.

    Args:
        errors: Name and relative error of the answers, in the order in which the layers run, which equal ones keep.

    Example:
        >>> rank_by_error([("stem", 0.04), ("middle", 0.01), ("head", 0.08)])
        ['head', 'stem', 'middle']
    """
    return [name for name, _ in sorted(errors, key=lambda pair: -pair[1])]
