"""Matrices and convolution kernels as products of smaller ones.

The best approximation of rank r to a matrix ``M = U·diag(σ)·Vᵀ`` keeps its r largest singular values, and what it
misses is the others' energy, ``‖M − M_r‖² = Σ_{i>r} σ_i²`` (Eckart & Young, *The approximation of one matrix by another of
lower rank*, Psychometrika 1936). A kernel ``W_HWCK`` of a convolution, with its axes for height, width, input and output
channels, is such a matrix in two ways:

* rows (H, C) and columns (W, K): a convolution down, then one across (section 2.2, scheme 2, of Jaderberg, Vedaldi &
  Zisserman, *Speeding up Convolutional Neural Networks with Low Rank Expansions*, BMVC 2014, arXiv:1405.3866);
* rows (H, W, C) and columns K: one to fewer channels, then one of 1 × 1 (Eq. 3 of Zhang et al., *Accelerating Very Deep
  Convolutional Networks for Classification and Detection*, 2015, arXiv:1505.06798).

Or it is a product along both axes of channels, ``W_HWCK ≈ Σ_rs A_Cr·G_HWrs·B_sK`` (Tucker-2: section 3.1 of Kim et al.,
*Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications*, ICLR 2016,
arXiv:1511.06530).

Kernels may have one axis of space or three as well: H is the first, W stands for those that there are beside it.

Energy is the sum of squares; shares of it are of the whole matrix's or kernel's. All is computed in double precision.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# H the first axis of space, W the others, C input channels, K output channels, R and S the ranks of these

Floats = NDArray[np.float64]

# Of an energy: a sum of squares that should be all of it may come to this much less.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class SingularValues:
    """A matrix as the sum of products of a column and a row, those that hold most of its energy first.

    These hold for all: ``(left * values) @ right`` is the matrix up to rounding, columns of `left` and rows of `right`
    are orthonormal, and `values` fall.

    Attributes:
        left: The columns.
        values: What each product is scaled by.
        right: The rows.
    """

    left: Floats
    values: Floats
    right: Floats

    @classmethod
    def of(cls, matrix: NDArray[Any]) -> SingularValues:
        """Return the singular values of a matrix, all of whose entries are finite."""
        return cls(*np.linalg.svd(np.asarray(matrix, np.float64), full_matrices=False))

    @property
    def kept(self) -> Floats:
        """The share of the energy that is kept at each rank, from 1 on; it rises to 1."""
        return _shares(np.cumsum(self.values**2))

    def factors(self, rank: int) -> tuple[Floats, Floats]:
        """Return the two matrices whose product is the best approximation of a rank.

        Both carry the root of each singular value, so that neither is much larger than the other when they are taught.

        Args:
            rank: From 1 to the smaller side of the matrix.

        Example:
            >>> left, right = SingularValues.of(np.diag([9.0, 4.0, 1.0])).factors(2)
            >>> np.abs(left @ right).round(6)
            array([[9., 0., 0.],
                   [0., 4., 0.],
                   [0., 0., 0.]])
        """
        root = np.sqrt(self.values[:rank])
        return self.left[:, :rank] * root, root[:, None] * self.right[:rank]


@dataclass(frozen=True)
class Tucker:
    """A kernel with the directions along both axes of channels that hold most of its energy.

    Attributes:
        kernel: The kernel, of shape HWCK.
        inputs: Orthonormal columns over the input channels, C × C, those with most of the energy first.
        outputs: The same over the output channels, K × K.
    """

    kernel: Floats
    inputs: Floats
    outputs: Floats

    @classmethod
    def of(cls, kernel: NDArray[Any]) -> Tucker:
        """Return the higher-order singular vectors of a kernel, all of whose weights are finite."""
        kernel = np.asarray(kernel, np.float64)
        return cls(kernel, _directions(kernel, -2), _directions(kernel, -1))

    @functools.cached_property
    def kept(self) -> Floats:
        """The share of the energy that is kept at each pair of ranks from 1 on, C × K; it rises along both axes to 1.

        It is that of the directions here: `factors` with iterations keeps as much or more.
        """
        turned = _through(self.kernel, self.inputs) @ self.outputs
        energies = np.square(turned).sum(tuple(range(turned.ndim - 2)))
        return _shares(energies.cumsum(0).cumsum(1))

    def factors(
        self, ranks: tuple[int, int], iterations: int = 3
    ) -> tuple[Floats, Floats, Floats]:
        """Return what convolutions of size 1, of the kernel's own size, and of size 1 again have for kernels.

        The truncated directions are improved in turn, each for what the other lets through, by higher-order orthogonal
        iteration (De Lathauwer, De Moor & Vandewalle, *On the best rank-1 and rank-(R₁, R₂, …, R_N) approximation of
        higher-order tensors*, SIAM J. Matrix Anal. Appl. 2000, Algorithm 4.2).

        Args:
            ranks: How many directions to keep of the input and of the output channels. All of them stand for the
                channels as they are: that factor is the identity.
            iterations: How often to improve; 0 for none.

        Returns:
            Of the shapes CR, HWRS and SK.
        """
        inputs, outputs = _leading(self.inputs, ranks[0]), _leading(self.outputs, ranks[1])
        for _ in range(iterations):
            inputs = _leading(_directions(self.kernel @ outputs, -2), ranks[0])
            outputs = _leading(_directions(_through(self.kernel, inputs), -1), ranks[1])
        return inputs, _through(self.kernel, inputs) @ outputs, outputs.T


def tucker_product(inputs: Floats, core: Floats, outputs: Floats) -> Floats:
    """Return the kernel of shape HWCK that the factors CR, HWRS and SK are together."""
    return _through(core, inputs.T) @ outputs


def channel_matrix(kernel: NDArray[Any]) -> Floats:
    """Return a kernel of shape HWCK as the matrix with rows (H, W, C) and columns K."""
    matrix: Floats = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
    return matrix


def channel_kernels(left: Floats, right: Floats, shape: Sequence[int]) -> tuple[Floats, Floats]:
    """Return factors of `channel_matrix` as kernels: one of the kernel's own size to R channels, and one of size 1.

    Args:
        left: Of shape (H·W·C) × R.
        right: Of shape R × K.
        shape: The kernel's, HWCK.
    """
    return left.reshape(*shape[:-1], -1), pointwise(right, len(shape))


def pointwise(matrix: Floats, axes: int) -> Floats:
    """Return a matrix, input by output channels, as a kernel of size 1 with so many axes, those of channels among them."""
    return matrix.reshape((1,) * (axes - 2) + matrix.shape)


def spatial_matrix(kernel: NDArray[Any]) -> Floats:
    """Return a kernel of shape HWCK as the matrix with rows (H, C) and columns (W, K)."""
    high, *wide, inputs, outputs = kernel.shape
    turned = np.moveaxis(np.asarray(kernel, np.float64), -2, 1)
    matrix: Floats = turned.reshape(high * inputs, math.prod(wide) * outputs)
    return matrix


def spatial_kernels(left: Floats, right: Floats, shape: Sequence[int]) -> tuple[Floats, Floats]:
    """Return factors of `spatial_matrix` as kernels, H × 1 to R channels, and 1 × W from these.

    Args:
        left: Of shape (H·C) × R.
        right: Of shape R × (W·K).
        shape: The kernel's, HWCK.
    """
    high, *wide, inputs, outputs = shape
    down = left.reshape(high, *(1 for _ in wide), inputs, -1)
    across = np.moveaxis(right.reshape(-1, *wide, outputs), 0, -2)[None]
    return down, across


def spatial_product(left: Floats, right: Floats, shape: Sequence[int]) -> Floats:
    """Return the kernel of shape HWCK that factors of `spatial_matrix` are together; arguments as for `spatial_kernels`."""
    high, *wide, inputs, outputs = shape
    turned = (left @ right).reshape(high, inputs, *wide, outputs)
    return np.moveaxis(turned, 1, -2)


def largest_paying_rank(rows: int, columns: int, margin: float = 0.0) -> int:
    """Return the largest rank whose two factors have fewer entries than the matrix; 0 where there is none.

    So many are multiply-accumulates too, where both factors are used as often as the matrix: ``r·(m + n) < m·n``.

    Args:
        rows: m.
        columns: n.
        margin: The share of the entries that has to be saved, in [0, 1).

    Example:
        >>> largest_paying_rank(100, 100), largest_paying_rank(100, 100, margin=0.5), largest_paying_rank(100, 1)
        (49, 25, 0)
    """
    entries = rows * columns
    # Not (1 − margin)·m·n: (1 − 0.8)·400 is a little less than 80.
    if not entries:
        return 0
    return min(int(entries - margin * entries), entries - 1) // (rows + columns)


def keeps(kept: Floats, energy: float) -> NDArray[np.bool_]:
    """Return which shares of an energy are `energy` or more, but for rounding."""
    return kept >= energy - _ROUNDING


def rank_for_energy(kept: Floats, energy: float) -> int:
    """Return the smallest rank that keeps a share of the energy.

    Args:
        kept: The share at each rank from 1 on, as `SingularValues.kept`.
        energy: In [0, 1].

    Example:
        >>> rank_for_energy(SingularValues.of(np.diag([3.0, 2.0, 1.0])).kept, 0.9)
        2
    """
    return 1 + int(np.argmax(keeps(kept, energy)))


def within_budget(
    costs: Sequence[Floats], losses: Sequence[Floats], budget: float
) -> list[int] | None:
    """Return which option to choose for each item so that the costs sum to no more than a budget.

    Of each item those options count that lie on the lower convex hull of its costs and losses. Beginning with the
    least lossy ones, the step that loses least for each unit saved is taken next, until the budget is met; the last
    step may save more than it had to (Shoham & Gersho, *Efficient bit allocation for an arbitrary set of quantizers*,
    IEEE Trans. ASSP 1988).

    Args:
        costs: What each option costs, an array an item.
        losses: What each option loses, of the same shapes; finite.
        budget: What may be spent.

    Returns:
        The place of one option an item; None where the cheapest of all cost more.

    Example:
        >>> costs, losses = [np.array([9.0, 5.0]), np.array([9.0, 5.0])], [np.array([0.0, 2.0]), np.array([0.0, 1.0])]
        >>> within_budget(costs, losses, 14.0)
        [0, 1]
    """
    hulls = [_hull(cost, loss) for cost, loss in zip(costs, losses, strict=True)]
    chosen = [0] * len(hulls)
    spent = sum(cost[hull[0]] for cost, hull in zip(costs, hulls, strict=True))

    def step(item: int) -> tuple[float, int]:
        here, there = hulls[item][chosen[item]], hulls[item][chosen[item] + 1]
        saved = costs[item][here] - costs[item][there]
        return float((losses[item][there] - losses[item][here]) / saved), item

    steps = [step(item) for item, hull in enumerate(hulls) if len(hull) > 1]
    heapq.heapify(steps)
    while spent > budget and steps:
        _, item = heapq.heappop(steps)
        spent -= costs[item][hulls[item][chosen[item]]]
        chosen[item] += 1
        spent += costs[item][hulls[item][chosen[item]]]
        if chosen[item] + 1 < len(hulls[item]):
            heapq.heappush(steps, step(item))
    found = [hull[place] for hull, place in zip(hulls, chosen, strict=True)]
    total = sum(cost[place] for cost, place in zip(costs, found, strict=True))
    return found if total <= budget else None


def _hull(cost: Floats, loss: Floats) -> list[int]:
    """Return the options on the lower convex hull, the dearest first: each next one costs less and loses more."""
    hull: list[int] = []
    for place in np.lexsort((loss, cost)).tolist():
        if hull and loss[place] >= loss[hull[-1]]:
            continue
        while len(hull) > 1 and not _turns(cost, loss, hull[-2], hull[-1], place):
            hull.pop()
        hull.append(place)
    return hull[::-1]


def _turns(cost: Floats, loss: Floats, first: int, middle: int, last: int) -> bool:
    """Say whether `middle` lies below the line from `first` to `last`, costs rising."""
    onward = (cost[last] - cost[first]) * (loss[middle] - loss[first])
    return bool(onward < (cost[middle] - cost[first]) * (loss[last] - loss[first]))


def _shares(energies: Floats) -> Floats:
    """Return sums of energy as shares of the last and largest; all of nothing is kept at any rank."""
    total = energies.flat[-1]
    shares: Floats = np.ones_like(energies)
    if total > 0:
        np.minimum(energies / total, 1.0, out=shares)
    return shares


def _directions(kernel: Floats, axis: int) -> Floats:
    """Return orthonormal directions along an axis as columns, those with most of a kernel's energy first."""
    rows = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)
    # Of the far larger side nothing is needed, so the Gram matrix of the smaller one will do.
    _, vectors = np.linalg.eigh(rows @ rows.T)
    directions: Floats = vectors[:, ::-1]
    return directions


def _leading(directions: Floats, rank: int) -> Floats:
    """Return the first directions; all of them only turn the channels, which may then stay as they are."""
    return np.eye(rank) if rank == len(directions) else directions[:, :rank]


def _through(kernel: Floats, inputs: Floats) -> Floats:
    """Return the kernel of shape HWRK behind a convolution of size 1 to the directions `inputs`, CR."""
    turned: Floats = np.swapaxes(np.swapaxes(kernel, -1, -2) @ inputs, -1, -2)
    return turned
