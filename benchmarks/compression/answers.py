"""Right and wrong answers of the same samples: kept in a line of a file, and compared in pairs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from strop.numerics.statistics import Interval, paired_drop_interval

Right = NDArray[np.bool_]


def kept(right: Right) -> str:
    """Return right and wrong answers as a text, four a letter, their number before it."""
    return f"{len(right)}:{np.packbits(right).tobytes().hex()}"


def read(text: str) -> Right:
    """Return what `kept` was called on."""
    count, bits = text.split(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=int(count)) == 1


def gain(of: Sequence[Right], over: Sequence[Right]) -> Interval:
    """Return by how many points the mean accuracy over seeds is higher, with its paired interval at 95 %.

    Each sample has a score, the share of seeds that answer it rightly; the pairs are those of a sample.

    Args:
        of: The answers of each seed.
        over: The same of what it is compared with; one alone stands for every seed.
    """
    after, before = (np.mean(np.stack(answers), axis=0) for answers in (of, over))
    drop = paired_drop_interval(before, after)
    # Subtracted and not negated: no gain is 0 and not −0.
    return Interval(*(0 - 100 * end for end in (drop.value, drop.high, drop.low)))
