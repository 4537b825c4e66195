"""Factors of low rank are what the mathematics of singular values says of them, and convolve to what they replace."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.numerics.low_rank import (
    SingularValues,
    Tucker,
    channel_kernels,
    channel_matrix,
    keeps,
    largest_paying_rank,
    rank_for_energy,
    spatial_kernels,
    spatial_matrix,
    spatial_product,
    tucker_product,
    within_budget,
)

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(1, 7)
# Sums of some hundred products of numbers near one, each rounded to double precision.
ROUNDING = 1e-12


def matrix(seed, rows, columns):
    return np.random.default_rng(seed).normal(size=(rows, columns))


def kernel(seed, high=3, wide=2, inputs=4, outputs=5):
    return np.random.default_rng(seed).normal(size=(high, wide, inputs, outputs))


def lost(wanted, found):
    """The share of energy that `found` misses."""
    return np.sum((wanted - found) ** 2) / np.sum(wanted**2)


def convolved(image, weights, strides=(1, 1)):
    """A convolution without padding, written out: HWC and HWCK to HWK."""
    high, wide = weights.shape[:2]
    rows = range(0, image.shape[0] - high + 1, strides[0])
    columns = range(0, image.shape[1] - wide + 1, strides[1])
    return np.array(
        [
            [np.tensordot(image[i : i + high, j : j + wide], weights, 3) for j in columns]
            for i in rows
        ]
    )


@given(SEEDS, SIZES, SIZES)
def test_what_a_rank_misses_is_the_energy_of_the_other_singular_values(seed, rows, columns):
    whole = matrix(seed, rows, columns)
    values = SingularValues.of(whole)
    alone = np.linalg.svd(whole, compute_uv=False)
    for rank in range(1, min(rows, columns) + 1):
        left, right = values.factors(rank)
        assert left.shape == (rows, rank)
        assert right.shape == (rank, columns)
        missed = np.sum((whole - left @ right) ** 2)
        assert missed == pytest.approx(np.sum(alone[rank:] ** 2), abs=ROUNDING)
        assert values.kept[rank - 1] == pytest.approx(1 - missed / np.sum(whole**2), abs=ROUNDING)


@given(SEEDS, SIZES, SIZES)
def test_the_full_rank_misses_nothing(seed, rows, columns):
    whole = matrix(seed, rows, columns)
    left, right = SingularValues.of(whole).factors(min(rows, columns))
    np.testing.assert_allclose(left @ right, whole, atol=ROUNDING)


@given(SEEDS, SIZES, SIZES)
def test_the_more_energy_the_more_rank(seed, rows, columns):
    kept = SingularValues.of(matrix(seed, rows, columns)).kept
    ranks = [rank_for_energy(kept, energy) for energy in np.linspace(0, 1, 21)]
    assert ranks == sorted(ranks)
    assert (ranks[0], ranks[-1]) == (1, min(rows, columns))
    for energy, rank in zip(np.linspace(0, 1, 21), ranks, strict=True):
        assert kept[rank - 1] >= energy - ROUNDING
        assert rank == 1 or kept[rank - 2] < energy


@given(SEEDS, st.integers(1, 4))
def test_a_matrix_of_low_rank_needs_no_more_for_all_of_its_energy(seed, rank):
    product = matrix(seed, 8, rank) @ matrix(seed + 1, rank, 6)
    assert rank_for_energy(SingularValues.of(product).kept, 1.0) == rank


def test_nothing_is_kept_whole_at_any_rank():
    assert SingularValues.of(np.zeros((3, 2))).kept.tolist() == [1.0, 1.0]
    assert Tucker.of(np.zeros((1, 1, 2, 2))).kept.tolist() == [[1.0, 1.0], [1.0, 1.0]]


@given(SEEDS, SIZES, SIZES)
def test_both_factors_are_of_one_size(seed, rows, columns):
    left, right = SingularValues.of(matrix(seed, rows, columns)).factors(1)
    assert np.linalg.norm(left) == pytest.approx(np.linalg.norm(right))


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 0.95))
def test_the_largest_rank_that_pays_is_the_largest(rows, columns, margin):
    rank = largest_paying_rank(rows, columns, margin)

    def pays(rank):
        entries = rank * (rows + columns)
        return entries < rows * columns and rows * columns - entries >= margin * rows * columns

    assert rank == 0 or pays(rank)
    assert not pays(rank + 1)


@given(SEEDS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 2), st.integers(1, 2))
def test_a_convolution_down_and_one_across_are_the_kernel_of_their_product(
    seed, high, wide, down, across
):
    whole = kernel(seed, high, wide, 3, 2)
    image = np.random.default_rng(seed).normal(size=(6, 7, 3))
    full = min(spatial_matrix(whole).shape)
    for rank in (1, full):
        first, second = spatial_kernels(
            *SingularValues.of(spatial_matrix(whole)).factors(rank), whole.shape
        )
        assert first.shape == (high, 1, 3, rank)
        assert second.shape == (1, wide, rank, 2)
        product = np.einsum("hcr,wrk->hwck", first[:, 0], second[0])
        found = convolved(convolved(image, first, (down, 1)), second, (1, across))
        np.testing.assert_allclose(found, convolved(image, product, (down, across)), atol=1e-10)
    np.testing.assert_allclose(product, whole, atol=ROUNDING)


@given(SEEDS, st.integers(1, 5))
def test_a_convolution_and_one_of_one_by_one_are_the_kernel_of_their_product(seed, rank):
    whole = kernel(seed)
    image = np.random.default_rng(seed).normal(size=(5, 5, 4))
    values = SingularValues.of(channel_matrix(whole))
    core, last = channel_kernels(*values.factors(rank), whole.shape)
    assert core.shape == (3, 2, 4, rank)
    assert last.shape == (1, 1, rank, 5)
    product = core @ last[0, 0]
    found = convolved(convolved(image, core), last)
    np.testing.assert_allclose(found, convolved(image, product), atol=1e-10)
    assert 1 - lost(whole, product) == pytest.approx(values.kept[rank - 1], abs=ROUNDING)


@given(SEEDS, st.integers(1, 4), st.integers(1, 5))
def test_three_convolutions_are_the_kernel_of_their_product(seed, inputs, outputs):
    whole = kernel(seed)
    image = np.random.default_rng(seed).normal(size=(5, 5, 4))
    first, core, last = Tucker.of(whole).factors((inputs, outputs))
    assert (first.shape, core.shape, last.shape) == (
        (4, inputs), (3, 2, inputs, outputs), (outputs, 5),
    )  # fmt: skip
    product = np.einsum("cr,hwrs,sk->hwck", first, core, last)
    narrow = convolved(convolved(image, first[None, None]), core)
    found = convolved(narrow, last[None, None])
    np.testing.assert_allclose(found, convolved(image, product), atol=1e-10)


# One, two or three axes of space, then input and output channels.
SHAPES = st.lists(st.integers(1, 3), min_size=1, max_size=3).flatmap(
    lambda sizes: st.tuples(*map(st.just, sizes), st.integers(1, 4), st.integers(1, 4))
)


@given(SEEDS, SHAPES)
def test_at_the_full_rank_factors_of_any_kernel_are_the_kernel(seed, shape):
    whole = np.random.default_rng(seed).normal(size=shape)
    inputs, outputs = shape[-2:]

    across = SingularValues.of(spatial_matrix(whole))
    factors = across.factors(len(across.values))
    down, behind = spatial_kernels(*factors, shape)
    core, last = channel_kernels(
        *SingularValues.of(channel_matrix(whole)).factors(min(math.prod(shape[:-1]), outputs)),
        shape,
    )

    np.testing.assert_allclose(spatial_product(*factors, shape), whole, atol=ROUNDING)
    assert down.shape[:-1] == (shape[0], *(1 for _ in shape[1:-2]), inputs)
    assert behind.shape[:-2] == (1, *shape[1:-2])
    assert behind.shape[-1] == outputs
    np.testing.assert_allclose(core @ last.reshape(last.shape[-2:]), whole, atol=ROUNDING)
    assert last.ndim == core.ndim == len(shape)
    np.testing.assert_allclose(
        tucker_product(*Tucker.of(whole).factors((inputs, outputs))), whole, atol=ROUNDING
    )


@given(SEEDS, SHAPES, st.floats(0.05, 1.0))
def test_no_ranks_keep_less_energy_than_they_tell(seed, shape, energy):
    whole = np.random.default_rng(seed).normal(size=shape)
    tucker = Tucker.of(whole)
    ranks = tuple(int(axis[0]) + 1 for axis in np.nonzero(keeps(tucker.kept, energy)))
    assert 1 - lost(whole, tucker_product(*tucker.factors(ranks))) >= energy - ROUNDING
    values = SingularValues.of(spatial_matrix(whole))
    factors = values.factors(rank_for_energy(values.kept, energy))
    assert 1 - lost(whole, spatial_product(*factors, shape)) >= energy - ROUNDING


def test_where_there_are_no_weights_no_rank_pays():
    assert largest_paying_rank(0, 4) == largest_paying_rank(4, 0) == 0


@given(SEEDS)
def test_what_a_pair_of_ranks_keeps_is_told_beforehand_for_all_pairs(seed):
    whole = kernel(seed)
    found = Tucker.of(whole)
    for inputs, outputs in itertools.product(range(1, 5), range(1, 6)):
        parts = found.factors((inputs, outputs), iterations=0)
        product = np.einsum("cr,hwrs,sk->hwck", *parts)
        kept = found.kept[inputs - 1, outputs - 1]
        assert 1 - lost(whole, product) == pytest.approx(kept, abs=ROUNDING)
    assert (np.diff(found.kept, axis=0) >= -ROUNDING).all()
    assert (np.diff(found.kept, axis=1) >= -ROUNDING).all()


@given(SEEDS, st.integers(1, 4), st.integers(1, 5))
def test_iterations_never_lose_more(seed, inputs, outputs):
    whole = kernel(seed)
    found = Tucker.of(whole)
    errors = [
        lost(whole, np.einsum("cr,hwrs,sk->hwck", *found.factors((inputs, outputs), iterations=n)))
        for n in range(4)
    ]
    assert all(later <= earlier + ROUNDING for earlier, later in itertools.pairwise(errors))


def test_iterations_find_what_truncation_alone_does_not():
    found, whole = Tucker.of(kernel(3)), kernel(3)
    errors = [
        lost(whole, np.einsum("cr,hwrs,sk->hwck", *found.factors((2, 2), iterations=n)))
        for n in (0, 3)
    ]
    assert errors[1] < 0.99 * errors[0]


def test_channels_of_which_all_are_kept_stay_as_they_are():
    whole = kernel(0)
    first, core, last = Tucker.of(whole).factors((4, 5))
    assert first.tolist() == np.eye(4).tolist()
    assert last.tolist() == np.eye(5).tolist()
    np.testing.assert_allclose(core, whole, atol=ROUNDING)


def test_a_share_is_reached_but_for_rounding():
    assert keeps(np.array([0.9 - 1e-15, 0.9 - 1e-9]), 0.9).tolist() == [True, False]


@st.composite
def menus(draw):
    """Items with some options each, the first of which loses nothing."""
    items = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    numbers = st.integers(1, 40)
    costs = [[50, *draw(st.lists(numbers, min_size=n, max_size=n))] for n in items]
    losses = [[0, *draw(st.lists(numbers, min_size=n, max_size=n))] for n in items]
    return [np.array(c, float) for c in costs], [np.array(x, float) for x in losses]


@given(menus(), st.integers(1, 200))
def test_a_budget_is_kept_wherever_it_can_be(menu, budget):
    costs, losses = menu
    found = within_budget(costs, losses, budget)
    if sum(cost.min() for cost in costs) > budget:
        assert found is None
    else:
        assert sum(cost[n] for cost, n in zip(costs, found, strict=True)) <= budget


@given(menus(), st.integers(1, 200))
def test_no_other_choice_that_costs_no_more_loses_less(menu, budget):
    costs, losses = menu
    found = within_budget(costs, losses, budget)
    if found is None:
        return
    spent = sum(cost[n] for cost, n in zip(costs, found, strict=True))
    loss = sum(lost[n] for lost, n in zip(losses, found, strict=True))
    for other in itertools.product(*(range(len(cost)) for cost in costs)):
        if sum(cost[n] for cost, n in zip(costs, other, strict=True)) <= spent:
            assert sum(x[n] for x, n in zip(losses, other, strict=True)) >= loss


def test_a_budget_that_is_met_changes_nothing():
    assert within_budget([np.array([9.0, 1.0])], [np.array([0.0, 1.0])], 9.0) == [0]


def test_the_layer_that_loses_least_for_what_it_saves_goes_first():
    costs = [np.array([10.0, 5.0, 2.0]), np.array([10.0, 5.0, 2.0])]
    losses = [np.array([0.0, 1.0, 4.0]), np.array([0.0, 2.0, 9.0])]
    assert within_budget(costs, losses, 16) == [1, 0]
    assert within_budget(costs, losses, 11) == [1, 1]
    assert within_budget(costs, losses, 8) == [2, 1]
    assert within_budget(costs, losses, 3) is None
