"""Masks drop exactly so much as is asked for, always the least, in the shapes asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from strop.numerics.sparsity import (
    UNSTRUCTURED,
    Block,
    NOfM,
    block_mask,
    global_masks,
    layer_adaptive_scores,
    magnitude_mask,
    n_of_m_mask,
    pattern_named,
    random_mask,
)

SHARES = st.floats(0, 1, exclude_max=True)
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, max_side=7)
NUMBERS = st.floats(-100, 100, width=32)
# Few different values make many ties.
WEIGHTS = arrays.arrays(np.float32, SHAPES, elements=NUMBERS) | arrays.arrays(
    np.float32, SHAPES, elements=st.sampled_from([0, 1, -1, 2])
)
MATRICES = arrays.arrays(
    np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=NUMBERS
)
SEEDS = st.integers(0, 2**31)


def zeros(mask):
    return int(np.sum(~mask))


def wanted_zeros(sparsity, count, least=1):
    """How many go of `count`, of which `least` stay."""
    return min(round(sparsity * count), count - least)


def kept_is_at_least_dropped(scores, mask):
    kept, dropped = scores[mask], scores[~mask]
    return not kept.size or not dropped.size or kept.min() >= dropped.max()


@given(WEIGHTS, SHARES)
def test_exactly_the_share_is_dropped_and_it_is_the_least(weights, sparsity):
    mask = magnitude_mask(weights, sparsity)
    assert mask.shape == weights.shape
    assert zeros(mask) == wanted_zeros(sparsity, weights.size)
    assert kept_is_at_least_dropped(np.abs(weights), mask)


@given(WEIGHTS, SHARES, SHARES)
def test_what_stays_at_a_higher_share_stays_at_a_lower_one(weights, a, b):
    low, high = sorted((a, b))
    assert not np.any(magnitude_mask(weights, high) & ~magnitude_mask(weights, low))


@given(WEIGHTS, SHARES)
def test_what_was_dropped_is_what_would_be_dropped_again(weights, sparsity):
    mask = magnitude_mask(weights, sparsity)
    again = magnitude_mask(np.where(mask, weights, 0), sparsity)
    # Weights that were zero before tie with those dropped: then as many go, of which none counts for anything.
    assert zeros(again) == zeros(mask)
    assert not np.any(weights[mask & ~again])


@given(st.integers(1, 60), SHARES, SEEDS)
def test_weights_in_another_order_keep_the_same_ones(size, sparsity, seed):
    random = np.random.default_rng(seed)
    weights = random.permutation(size) * random.choice([-1, 1], size)
    order = random.permutation(size)
    np.testing.assert_array_equal(
        magnitude_mask(weights[order], sparsity), magnitude_mask(weights, sparsity)[order]
    )


def test_of_equal_weights_the_first_go_first():
    assert magnitude_mask(np.array([1.0, -1.0, 1.0, 1.0]), 0.5).tolist() == [False, False, True, True]  # fmt: skip


def test_half_precision_ranks_as_it_is():
    assert magnitude_mask(np.array([3, 1, 2], np.float16), 0.4).tolist() == [True, False, True]


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
@pytest.mark.parametrize(
    "mask_of",
    [
        lambda w, s: magnitude_mask(w, s),
        lambda w, s: block_mask(w, s, (2, 2)),
        lambda w, s: global_masks([w], s),
        lambda w, s: random_mask(w.shape, s, 0),
    ],
)
def test_a_share_that_cannot_be_is_refused(mask_of, sparsity):
    with pytest.raises(ValueError, match="expected a sparsity from 0 to below 1, got"):
        mask_of(np.ones((4, 4)), sparsity)


@pytest.mark.parametrize(
    "mask_of",
    [
        lambda w: magnitude_mask(w, 0.5),
        lambda w: block_mask(w, 0.5, (2, 2)),
        lambda w: global_masks([np.ones(3), w], 0.5),
        lambda w: n_of_m_mask(w, 2, 4, 0),
    ],
)
def test_weights_that_are_no_numbers_are_refused(mask_of):
    weights = np.ones((4, 4))
    weights[1, 2] = np.nan
    with pytest.raises(ValueError, match="expected weights that can be ranked, got NaN among 16"):
        mask_of(weights)


@given(SHAPES, SHARES, SHARES, SEEDS)
def test_a_random_mask_drops_exactly_the_share_and_holds_that_of_a_higher_one(shape, a, b, seed):
    low, high = sorted((a, b))
    fewer, more = random_mask(shape, low, seed), random_mask(shape, high, seed)
    assert (zeros(fewer), zeros(more)) == tuple(
        wanted_zeros(share, fewer.size) for share in (low, high)
    )
    assert not np.any(more & ~fewer)


def test_another_seed_gives_another_random_mask():
    assert np.any(random_mask((9, 9), 0.5, 0) != random_mask((9, 9), 0.5, 1))
    assert np.any(random_mask((9, 9), 0.5, (0, 0)) != random_mask((9, 9), 0.5, (0, 1)))


def blocks_of(array, block):
    height, width = block
    return [
        array[y : y + height, x : x + width]
        for y in range(0, array.shape[0], height)
        for x in range(0, array.shape[1], width)
    ]


@given(MATRICES, SHARES, st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_blocks_go_whole_in_the_number_asked_for_and_are_the_least(weights, sparsity, block):
    mask = block_mask(weights, sparsity, block)
    parts = blocks_of(mask, block)
    assert all(part.all() or not part.any() for part in parts)
    kept = np.array([part.all() for part in parts])
    assert zeros(kept) == wanted_zeros(sparsity, len(parts))
    means = np.array(
        [np.abs(part.astype(np.float64)).mean() for part in blocks_of(weights, block)]
    )
    # Two ways to add up the same few numbers differ by a rounding for each of at most 16.
    rounding = 16 * np.finfo(np.float64).eps * 100
    assert not kept.any() or kept.all() or means[kept].min() >= means[~kept].max() - rounding


def test_a_smaller_block_at_the_edge_is_ranked_by_its_own_mean():
    weights = np.array([[3.0, 3.0, 4.0]])
    assert block_mask(weights, 0.5, (1, 2)).tolist() == [[False, False, True]]


@given(SEEDS, SHARES)
def test_blocks_lie_along_the_axes_named(seed, sparsity):
    weights = np.random.default_rng(seed).normal(size=(4, 3, 6))
    moved = block_mask(np.moveaxis(weights, 0, -1), sparsity, (2, 4))
    mask = block_mask(weights, sparsity, (2, 4), axes=(2, 0))
    np.testing.assert_array_equal(np.moveaxis(mask, 0, -1), moved)


@pytest.mark.parametrize(
    ("block", "axes", "wrong"),
    [
        ((0, 2), None, r"expected blocks of at least one weight along each axis, got \(0, 2\)"),
        ((2, 2, 2), None, r"expected weights with an axis -3, got the shape \(4, 4\)"),
        ((2, 2), (0,), r"expected an axis for each of 2, got \(0,\)"),
    ],
)
def test_blocks_that_fit_no_axes_are_refused(block, axes, wrong):
    with pytest.raises(ValueError, match=wrong):
        block_mask(np.ones((4, 4)), 0.5, block, axes)


@given(st.lists(WEIGHTS, min_size=1, max_size=4), SHARES)
def test_layers_ranked_together_drop_the_share_of_all(weights, sparsity):
    masks = global_masks(weights, sparsity)
    assert [mask.shape for mask in masks] == [array.shape for array in weights]
    flat, kept = (np.concatenate([a.reshape(-1) for a in given]) for given in (weights, masks))
    assert zeros(kept) == wanted_zeros(sparsity, flat.size, least=len(weights))
    # What stays in a layer alone may be less than what goes elsewhere.
    is_floor = np.concatenate([np.full(m.size, np.sum(m) == 1) for m in masks])
    assert kept_is_at_least_dropped(np.abs(flat)[~is_floor], kept[~is_floor])


@given(WEIGHTS, SHARES)
def test_one_layer_ranked_with_no_others_is_ranked_by_itself(weights, sparsity):
    (mask,) = global_masks([weights], sparsity)
    np.testing.assert_array_equal(mask, magnitude_mask(weights, sparsity))


@given(
    st.lists(WEIGHTS, min_size=1, max_size=4),
    SHARES | st.floats(0.99, 1, exclude_max=True),
    st.booleans(),
)
def test_of_layers_ranked_together_none_loses_its_last_and_largest(weights, sparsity, adaptive):
    masks = global_masks(weights, sparsity, layer_adaptive=adaptive)
    for array, mask in zip(weights, masks, strict=True):
        assert np.abs(array)[mask].max() == np.abs(array).max()
    least, total = len(weights), sum(array.size for array in weights)
    assert sum(map(zeros, masks)) == min(round(sparsity * total), total - least)


@given(st.lists(WEIGHTS, min_size=1, max_size=4), SHARES, SHARES, st.booleans())
def test_what_stays_of_all_at_a_higher_share_stays_at_a_lower_one(weights, a, b, adaptive):
    fewer, more = (
        global_masks(weights, share, layer_adaptive=adaptive) for share in sorted((a, b))
    )
    assert not any(np.any(high & ~low) for low, high in zip(fewer, more, strict=True))


@given(st.integers(1, 200), st.sampled_from([(), (3,), (2, 2)]))
def test_however_large_the_share_one_weight_or_block_stays(size, block):
    weights = np.arange(4.0 * size).reshape(4, size)
    mask = block_mask(weights, 1 - 1e-9, block)
    assert mask[-1, -1]
    assert np.sum(mask) <= np.prod(block or 1)


def test_layers_without_weights_have_masks_without_any():
    found, none = global_masks([np.ones(3), np.ones((0, 2))], 0.9)
    assert (found.tolist(), none.shape) == ([False, False, True], (0, 2))


def test_blocks_of_layers_are_ranked_together():
    small, large = np.ones((2, 4)), np.full((4, 2), 5.0)
    found, other = global_masks([small, large], 0.25, (2, 2))
    assert (zeros(found), zeros(other)) == (4, 0)


def test_no_layers_have_no_masks():
    assert global_masks([], 0.5) == []


@given(
    st.integers(2, 5).flatmap(lambda of: st.tuples(st.integers(1, of - 1), st.just(of))),
    st.integers(1, 4),
    st.integers(0, 2),
    SEEDS,
)
def test_every_group_keeps_its_number_and_its_largest(group, groups, axis, seed):
    kept, of = group
    shape = [3, 2, 4]
    shape[axis] = of * groups
    weights = np.random.default_rng(seed).normal(size=shape)

    mask = n_of_m_mask(weights, kept, of, axis)

    def in_groups(array):
        return np.moveaxis(array, axis, -1).reshape(-1, of)

    for scores, stay in zip(in_groups(np.abs(weights)), in_groups(mask), strict=True):
        assert np.sum(stay) == kept
        assert kept_is_at_least_dropped(scores, stay)


@given(SEEDS)
def test_groups_keep_theirs_wherever_other_axes_are_moved(seed):
    random = np.random.default_rng(seed)
    weights, order = random.normal(size=(8, 5)), random.permutation(5)
    np.testing.assert_array_equal(
        n_of_m_mask(weights[:, order], 2, 4, 0), n_of_m_mask(weights, 2, 4, 0)[:, order]
    )


@given(SEEDS, SHARES, SHARES)
def test_on_its_way_a_group_pattern_drops_the_share_of_what_has_to_go(seed, a, b):
    weights, pattern = np.random.default_rng(seed).normal(size=(3, 8, 2)), NOfM(1, 4)
    low, high = sorted((a, b))
    fewer, more = (pattern.mask(weights, share, axis=1) for share in (low, high))
    assert zeros(fewer) == min(round(low * weights.size), weights.size * 3 // 4)
    assert not np.any(more & ~fewer)
    assert not np.any(n_of_m_mask(weights, 1, 4, 1) & ~more)


def test_groups_that_do_not_come_out_even_are_refused():
    with pytest.raises(ValueError, match="expected groups of 4 along axis 1, which has 6 weights"):
        n_of_m_mask(np.ones((4, 6)), 2, 4, 1)


@pytest.mark.parametrize(("kept", "of"), [(0, 4), (4, 4), (5, 4), (-1, 2)])
def test_groups_of_which_all_or_none_stay_are_refused(kept, of):
    wrong = f"expected fewer weights to stay than a group has, and at least one, got {kept}:{of}"
    with pytest.raises(ValueError, match=wrong):
        NOfM(kept, of)
    with pytest.raises(ValueError, match=wrong):
        n_of_m_mask(np.ones((4, 4)), kept, of, 0)


@pytest.mark.parametrize("pattern", [UNSTRUCTURED, Block((4, 1)), Block((8,)), NOfM(2, 4)])
def test_a_pattern_is_spelled_and_read_back(pattern):
    assert pattern_named(str(pattern)) == pattern


@pytest.mark.parametrize("text", ["", "blocks", "4x", "2:4:8", "-1x2", "2/4"])
def test_what_spells_no_pattern_is_told_what_does(text):
    with pytest.raises(ValueError, match="'unstructured', a block such as '4x1', or a group such"):
        pattern_named(text)


def test_a_pattern_says_which_weights_it_does_not_fit():
    assert Block((2, 2)).misfit((3, 3), None) is None
    assert Block((2, 2)).misfit((9,), 0) == "blocks of 2x2 need 2 axes, and its weights have 1"
    assert NOfM(2, 4).misfit((8, 3), 0) is None
    assert NOfM(2, 4).misfit((3, 8), 0) == (
        "4 does not divide the 3 weights along axis 0, which 2:4 is for"
    )
    assert NOfM(2, 4).misfit((3, 8), None) == (
        "groups of 2:4 lie along an axis that is summed over, and it sums over none"
    )


@given(arrays.arrays(np.float64, SHAPES, elements=st.floats(0.01, 100)), st.floats(0.01, 100))
def test_a_layers_scores_order_its_weights_as_their_magnitudes_and_know_no_scale(weights, factor):
    scores = layer_adaptive_scores(weights)
    np.testing.assert_allclose(layer_adaptive_scores(weights * factor), scores, rtol=1e-9)
    order = np.argsort(weights.reshape(-1), kind="stable")
    assert np.all(np.diff(scores.reshape(-1)[order]) >= -1e-12)
    assert scores.max() == pytest.approx(1.0)


@given(
    st.lists(
        arrays.arrays(np.float32, SHAPES, elements=st.floats(0.125, 100, width=32)),
        min_size=1,
        max_size=4,
    ),
    SHARES,
)
def test_ranked_layer_adaptively_so_much_goes_of_all_and_the_largest_of_each_layer_stays(
    layers, share
):
    masks = global_masks(layers, share, layer_adaptive=True)
    total = sum(layer.size for layer in layers)
    assert sum(map(zeros, masks)) == wanted_zeros(share, total, least=len(layers))
    assert all(mask[layer == layer.max()].any() for mask, layer in zip(masks, layers, strict=True))
