"""Which weights to drop; how many at which step of training says `strop.numerics.schedules`.

Those of least magnitude go: one by one, in blocks, or a fixed number of each group of neighbours (2 of 4 in Mishra et
al., *Accelerating Sparse Deep Neural Networks*, 2021, arXiv:2104.08378).

These hold for every mask here: it is True where a weight stays, has the shape of the weights, and is the same for the
same weights; of weights of equal magnitude, those that stand first go first. At least one weight stays, or one block,
however large the share: a layer that loses all of them lets nothing through, and the network is lost with it
("layer-collapse" in Tanaka et al., *Pruning neural networks without any data by iteratively conserving synaptic flow*,
NeurIPS 2020, arXiv:2006.05467).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.numerics.schedules import refuse_share

Mask = NDArray[np.bool_]
Weights = NDArray[Any]


def magnitude_mask(weights: Weights, sparsity: float) -> Mask:
    """Return the mask that drops the share `sparsity` of the weights, those of least magnitude.

    Args:
        weights: Of any shape.
        sparsity: The share to drop, in [0, 1); as many as that are, rounded to a whole number, and never all.

    Raises:
        ValueError: If the share is outside of [0, 1), or a weight is NaN.

    Example:
        >>> magnitude_mask(np.array([[0.1, -3.0], [-0.2, 2.0]]), 0.5)
        array([[False,  True],
               [False,  True]])
    """
    return block_mask(weights, sparsity, ())


def random_scores(shape: Sequence[int], seed: int | Sequence[int]) -> NDArray[np.float32]:
    """Return numbers that rank weights by chance: masks of them, in place of weights, are random ones.

    For one seed they are the same, so that of two random masks the one of more zeros has all those of the other.
    """
    return np.random.default_rng(seed).random(tuple(shape), np.float32)


def random_mask(shape: Sequence[int], sparsity: float, seed: int | Sequence[int]) -> Mask:
    """Return the mask that drops the share `sparsity` of the weights, any of them.

    Raises:
        ValueError: If the share is outside of [0, 1).
    """
    return magnitude_mask(random_scores(shape, seed), sparsity)


def block_mask(
    weights: Weights, sparsity: float, block: Sequence[int], axes: Sequence[int] | None = None
) -> Mask:
    """Return the mask that drops the share `sparsity` of the blocks, those of least mean magnitude.

    Where an axis is no multiple of the block, the last blocks along it are smaller, and count as whole ones.

    Args:
        weights: Of any shape.
        sparsity: The share of blocks to drop, in [0, 1).
        block: Weights along each axis of a block; empty for weights one by one.
        axes: The axes that `block` speaks of; None for the last ones.

    Raises:
        ValueError: If the share is outside of [0, 1), a weight is NaN, or blocks don't fit the axes.

    Example:
        >>> block_mask(np.array([[1.0, 1.0, 5.0], [0.0, 9.0, 4.0]]), 0.5, (1, 2))
        array([[False, False,  True],
               [ True,  True, False]])
    """
    refuse_share(sparsity)
    tile = _tile(weights.shape, block, axes)
    scores = _block_means(_magnitudes(weights), tile)
    return _spread(_largest(scores, _dropped(sparsity, scores.size)), tile, weights.shape)


def global_masks(
    weights: Sequence[Weights],
    sparsity: float,
    block: Sequence[int] = (),
    *,
    layer_adaptive: bool = False,
) -> list[Mask]:
    """Return the masks that drop the share `sparsity` of all the weights of several layers, ranked together.

    By magnitude, a layer whose weights are small loses more of them than one whose weights are large. Ranked
    layer-adaptively, it is a layer of many weights beside its large ones that loses more, whatever it is scaled by.

    The largest of each layer stays in either case. Others go in its place, so that the share of all is as asked for;
    only where fewer weights would stay than there are layers, as many stay as these.

    Args:
        weights: The layers' weights, of any shapes.
        sparsity: The share to drop of all of them, in [0, 1).
        block: As in `block_mask`, over each layer's last axes; then it is the share of blocks.
        layer_adaptive: Whether weights are ranked by `layer_adaptive_scores` and not by magnitude.

    Raises:
        ValueError: As in `block_mask`.

    Example:
        >>> layers = [np.array([1.0, 3.0, 3.0]), np.array([4.0, 5.0, 9.0])]
        >>> global_masks(layers, 0.5)
        [array([False, False,  True]), array([False,  True,  True])]
        >>> global_masks(layers, 0.5, layer_adaptive=True)
        [array([False,  True,  True]), array([False, False,  True])]
    """
    refuse_share(sparsity)
    if not weights:
        return []
    tiles = [_tile(array.shape, block, None) for array in weights]
    scores = [
        _block_means(_magnitudes(array), tile) for array, tile in zip(weights, tiles, strict=True)
    ]
    if layer_adaptive:
        scores = [layer_adaptive_scores(layer) for layer in scores]
    floors = [_largest(layer, max(layer.size - 1, 0)) for layer in scores]
    together = np.concatenate([layer.reshape(-1) for layer in scores])
    floor = np.concatenate([layer.reshape(-1) for layer in floors])
    ranked = np.where(floor, np.inf, together)
    kept = _largest(ranked, _dropped(sparsity, together.size, least=int(np.sum(floor))))
    ends = list(itertools.accumulate(layer.size for layer in scores))
    parts = np.split(kept, ends[:-1])
    return [
        _spread(part.reshape(layer.shape), tile, array.shape)
        for part, layer, tile, array in zip(parts, scores, tiles, weights, strict=True)
    ]


def layer_adaptive_scores(magnitudes: NDArray[Any]) -> NDArray[np.float64]:
    """Return the score of each weight among those of its layer: its square over the sum of all that are no smaller.

    What the score of layers has in common is the error of their outputs, relative to them, that dropping a weight makes
    where all smaller ones are gone. The largest of each layer has the score 1.

    Args:
        magnitudes: Of one layer's weights, of any shape.

    References:
        Lee et al., *Layer-adaptive Sparsity for the Magnitude-based Pruning*, 2021, equation 1.

    Example:
        >>> layer_adaptive_scores(np.array([1.0, 3.0, 2.0]))
        array([0.07142857, 1.        , 0.30769231])
    """
    squares = np.square(magnitudes.reshape(-1).astype(np.float64))
    order = np.argsort(squares, kind="stable")
    no_smaller = np.cumsum(squares[order][::-1])[::-1]
    scores = np.zeros_like(squares)
    scores[order] = np.divide(
        squares[order], no_smaller, out=np.zeros_like(squares), where=no_smaller > 0
    )
    found: NDArray[np.float64] = scores.reshape(magnitudes.shape)
    return found


def n_of_m_mask(weights: Weights, kept: int, of: int, axis: int) -> Mask:
    """Return the mask that keeps the `kept` weights of largest magnitude in each group of `of` neighbours.

    Args:
        weights: Of any shape.
        kept: Weights that stay in each group, from 1 to `of` − 1.
        of: Weights in a group.
        axis: The axis along which groups lie; for sparse kernels the one that a layer sums over.

    Raises:
        ValueError: If `of` does not divide the axis, `kept` is none or all of the group, or a weight is NaN.

    Example:
        >>> n_of_m_mask(np.array([1.0, -4.0, 3.0, 2.0]), 2, 4, axis=0)
        array([False,  True,  True, False])
    """
    _check_group(kept, of)
    if weights.shape[axis] % of:
        raise ValueError(
            f"expected groups of {of} along axis {axis}, which has {weights.shape[axis]} weights"
        )
    along = np.moveaxis(_magnitudes(weights), axis, -1)
    groups = along.reshape(*along.shape[:-1], -1, of)
    smallest = np.argsort(groups, axis=-1, kind="stable")[..., : of - kept]
    mask = np.ones(groups.shape, np.bool_)
    np.put_along_axis(mask, smallest, False, axis=-1)
    return np.moveaxis(mask.reshape(along.shape), -1, axis)


@dataclass(frozen=True)
class Block:
    """Weights that go together; `UNSTRUCTURED` is the block of one weight.

    Attributes:
        shape: Weights along each of a kernel's last axes; empty for one weight.

    Raises:
        ValueError: If a length is below 1.
    """

    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_block(self.shape)

    @property
    def sparsity(self) -> None:
        """None: any share of blocks can be dropped."""

    def misfit(self, shape: Sequence[int], axis: int | None) -> str | None:
        """Return why weights of a shape have no such blocks, or None where they have."""
        if len(self.shape) <= len(shape):
            return None
        return f"blocks of {self} need {len(self.shape)} axes, and its weights have {len(shape)}"

    def mask(self, weights: Weights, sparsity: float, axis: int | None) -> Mask:
        """Return the mask of one layer. Raises as `block_mask` does."""
        return block_mask(weights, sparsity, self.shape)

    def __str__(self) -> str:
        return "x".join(map(str, self.shape)) or "unstructured"


@dataclass(frozen=True)
class NOfM:
    """A fixed number of weights that stay in each group of neighbours along the axis that a layer sums over.

    Attributes:
        kept: Weights that stay in each group.
        of: Weights in a group.

    Raises:
        ValueError: If none or all of a group would stay.
    """

    kept: int
    of: int

    def __post_init__(self) -> None:
        _check_group(self.kept, self.of)

    @property
    def sparsity(self) -> float:
        """The one share of zeros that it comes to."""
        return (self.of - self.kept) / self.of  # 3/10 as it is written, and not 1 - 7/10

    def misfit(self, shape: Sequence[int], axis: int | None) -> str | None:
        """Return why weights of a shape have no such groups along an axis, or None where they have."""
        if axis is None:
            return f"groups of {self} lie along an axis that is summed over, and it sums over none"
        if shape[axis] % self.of:
            return f"{self.of} does not divide the {shape[axis]} weights along axis {axis}, which {self} is for"
        return None

    def mask(self, weights: Weights, sparsity: float, axis: int | None) -> Mask:
        """Return the mask of one layer on its way to the pattern: of what has to go, so much as `sparsity` says.

        Raises:
            ValueError: As `n_of_m_mask` does.
        """
        if axis is None:
            raise ValueError(f"expected an axis to find groups of {self} along, got None")
        mask = n_of_m_mask(weights, self.kept, self.of, axis)
        if sparsity >= self.sparsity:
            return mask
        # What stays in the end ranks above everything, so that it stays meanwhile too.
        return magnitude_mask(np.where(mask, np.inf, _magnitudes(weights)), sparsity)

    def __str__(self) -> str:
        return f"{self.kept}:{self.of}"


Pattern = Block | NOfM


def pattern_named(text: str) -> Pattern:
    """Return the pattern that `text` spells, as `str` of a pattern does.

    Raises:
        ValueError: If it spells none, or one that can't be.

    Example:
        >>> pattern_named("unstructured"), pattern_named("4x1"), pattern_named("2:4")
        (Block(shape=()), Block(shape=(4, 1)), NOfM(kept=2, of=4))
    """
    if text == str(UNSTRUCTURED):
        return UNSTRUCTURED
    if re.fullmatch(r"\d+(x\d+)*", text):
        return Block(tuple(map(int, text.split("x"))))
    if re.fullmatch(r"\d+:\d+", text):
        kept, of = map(int, text.split(":"))
        return NOfM(kept, of)
    raise ValueError(
        f"expected 'unstructured', a block such as '4x1', or a group such as '2:4', got {text!r}"
    )


def _check_group(kept: int, of: int) -> None:
    if not 0 < kept < of:
        raise ValueError(
            f"expected fewer weights to stay than a group has, and at least one, got {kept}:{of}"
        )


def _check_block(block: Sequence[int]) -> None:
    if any(length < 1 for length in block):
        raise ValueError(f"expected blocks of at least one weight along each axis, got {block!r}")


def _magnitudes(weights: Weights) -> NDArray[Any]:
    # Half precisions rank as in single; NumPy does not sort bfloat16.
    wide = np.float64 if weights.dtype == np.float64 else np.float32
    found: NDArray[Any] = np.abs(weights.astype(wide))
    if np.isnan(found).any():
        raise ValueError(f"expected weights that can be ranked, got NaN among {found.size}")
    return found


def _dropped(sparsity: float, count: int, *, least: int = 1) -> int:
    """Return how many of `count` a share is, with `least` of them left."""
    return max(min(round(sparsity * count), count - least), 0)


def _largest(scores: NDArray[Any], dropped: int) -> Mask:
    """Return where all scores stand but the `dropped` smallest; of equal ones the first are dropped first."""
    flat = scores.reshape(-1)
    if not dropped:
        return np.ones(scores.shape, np.bool_)
    threshold = np.partition(flat, dropped - 1)[dropped - 1]
    mask: Mask = np.greater(flat, threshold)
    equal = np.flatnonzero(flat == threshold)
    mask[equal[dropped - np.count_nonzero(flat < threshold) :]] = True
    return mask.reshape(scores.shape)


def _tile(
    shape: Sequence[int], block: Sequence[int], axes: Sequence[int] | None
) -> tuple[int, ...]:
    """Return how long a block is along each axis of weights."""
    _check_block(block)
    places = range(-len(block), 0) if axes is None else axes
    if len(places) != len(block):
        raise ValueError(f"expected an axis for each of {len(block)}, got {axes!r}")
    tile = [1] * len(shape)
    for place, length in zip(places, block, strict=True):
        if not -len(shape) <= place < len(shape):
            raise ValueError(
                f"expected weights with an axis {place}, got the shape {tuple(shape)}"
            )
        tile[place] = length
    return tuple(tile)


def _block_means(magnitudes: NDArray[Any], tile: Sequence[int]) -> NDArray[Any]:
    """Return the mean of each block."""
    if all(length == 1 for length in tile):
        return magnitudes
    means: NDArray[Any] = magnitudes.astype(np.float64)
    for axis, length in enumerate(tile):
        starts = np.arange(0, magnitudes.shape[axis], length)
        sizes = np.diff([*starts, magnitudes.shape[axis]])
        sizes = sizes.reshape([-1 if n == axis else 1 for n in range(means.ndim)])
        means = np.add.reduceat(means, starts, axis=axis) / sizes
    return means


def _spread(kept: Mask, tile: Sequence[int], shape: Sequence[int]) -> Mask:
    """Return the mask of weights whose blocks are kept."""
    for axis, length in enumerate(tile):
        if length > 1:
            kept = np.repeat(kept, length, axis=axis)
    found: Mask = kept[tuple(slice(size) for size in shape)]
    return found


UNSTRUCTURED = Block()
