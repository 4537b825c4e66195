"""Weights that share a few values: each takes the nearest, the error never rises, zeros stay zeros where asked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from strop.numerics.clustering import (
    INITIALIZATIONS,
    clustered,
    clusters_of,
    distinct_values,
    initial_centroids,
    lloyd,
    nearest,
    reclustered,
)

SEEDS = st.integers(0, 2**31)
COUNTS = st.integers(2, 9)
BEGINNINGS = st.sampled_from(sorted(INITIALIZATIONS))
# A few round numbers often, so that there are equal weights, zeros, and weights halfway between two centroids.
NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0, 2.0]), st.floats(-1e4, 1e4, width=32)
)


def weights(least=10, most=60):
    return st.integers(least, most).flatmap(lambda n: arrays(np.float32, n, elements=NUMBERS))


def squared_error(values, centroids):
    return float((np.abs(values[:, None].astype(float) - centroids).min(1) ** 2).sum())


def rounding(values):
    """How far two orders of adding up squared errors may be apart.

    Each of n summands is below (2 max|w|)², and each addition rounds by 2⁻⁵³ of the sum.
    """
    return 2.0**-50 * len(values) ** 2 * (1 + 2 * float(np.abs(values).max())) ** 2


@given(weights(), arrays(np.float64, st.integers(1, 9), elements=NUMBERS))
def test_each_weight_goes_to_the_nearest_centroid(values, centroids):
    centroids = np.sort(centroids)

    taken = np.abs(values - centroids[nearest(values, centroids)])

    # The midpoint that is looked up is rounded once.
    slack = 2.0**-51 * (1 + np.abs(centroids).max() + np.abs(values).max())
    assert (taken <= np.abs(values[:, None] - centroids).min(1) + slack).all()


@given(weights(), arrays(np.float64, st.integers(1, 9), elements=NUMBERS))
def test_iterations_never_raise_the_squared_error_and_end_at_the_means(values, centroids):
    settled = lloyd(values, centroids)

    assert squared_error(values, settled) <= squared_error(values, centroids) + rounding(values)
    places = nearest(values, settled)
    for place, centroid in enumerate(settled):
        mean = values[places == place].astype(float).mean()
        assert centroid == pytest.approx(mean, rel=1e-12, abs=1e-12 * float(np.abs(values).max()))


@given(weights(), arrays(np.float64, st.integers(1, 9), elements=NUMBERS))
def test_no_centroid_is_left_without_weights(values, centroids):
    settled = lloyd(values, centroids)
    assert len(settled) == min(len(centroids), len(np.unique(values)))
    assert sorted(set(nearest(values, settled))) == list(range(len(settled)))


def test_a_centroid_that_nothing_is_near_to_goes_where_the_error_is_worst():
    values = [0.0, 0.1, 5.0, 9.0]
    assert lloyd(values, [0.0, 7.0, 1000.0]).tolist() == [0.05, 5.0, 9.0]


def test_equal_weights_count_as_often_as_they_are_there():
    assert lloyd([0.0] * 9 + [1.0, 5.0], [0.0, 5.0]).tolist() == [0.1, 5.0]


@given(weights(), COUNTS, BEGINNINGS, st.booleans(), SEEDS)
def test_there_are_at_most_so_many_values_and_each_weight_has_one(
    values, count, beginning, zeros, seed
):
    found = clustered(values, count, initialization=beginning, preserve_zeros=zeros, seed=seed)

    assert found.assignment.shape == values.shape
    assert set(found.assignment) == set(range(len(found.centroids)))
    assert len(found.centroids) == min(count, len(np.unique(values)))
    assert (np.diff(found.centroids) > 0).all()


@given(weights(), COUNTS, BEGINNINGS, SEEDS)
def test_the_order_of_the_weights_does_not_matter(values, count, beginning, seed):
    order = np.random.default_rng(seed).permutation(len(values))
    found = clustered(values, count, initialization=beginning, preserve_zeros=True)
    other = clustered(values[order], count, initialization=beginning, preserve_zeros=True)
    np.testing.assert_array_equal(other.values, found.values[order])


@given(weights(), COUNTS, BEGINNINGS, SEEDS)
def test_zeros_that_are_preserved_stay_zeros_and_nothing_else_becomes_one(
    values, count, beginning, seed
):
    found = clustered(values, count, initialization=beginning, preserve_zeros=True, seed=seed)
    np.testing.assert_array_equal(found.values.astype(np.float32) == 0, values == 0)


def test_a_mean_that_is_zero_by_chance_is_put_off_zero():
    found = clustered([-1.0, 0.0, 1.0, -1.0, 1.0], 2, preserve_zeros=True)
    assert found.values.tolist() == [-1.0, 0.0, -1.0, -1.0, -1.0]


def test_where_zeros_are_not_preserved_they_are_weights_like_others():
    assert clustered([0.0, 0.0, 3.0, 9.0], 2, initialization="linear").values.tolist() == [
        1.0, 1.0, 1.0, 9.0,
    ]  # fmt: skip


@given(weights(), COUNTS, BEGINNINGS)
def test_what_is_clustered_already_stays_as_it_is(values, count, beginning):
    once = clustered(values, count, initialization=beginning).values
    np.testing.assert_array_equal(clustered(once, count, initialization=beginning).values, once)


@given(SEEDS, COUNTS, BEGINNINGS, st.sampled_from([(0,), (2,), (-1,), (1, 2), (-2, -1), (0, 2)]))
def test_each_channel_is_clustered_by_itself(seed, count, beginning, axes):
    kernel = np.random.default_rng(seed).normal(size=(9, 10, 9))
    kernel[kernel < -1] = 0

    found = clustered(
        kernel, count, initialization=beginning, channel_axes=axes, preserve_zeros=True
    )

    inner = tuple(axis for axis in range(3) if axis not in {axis % 3 for axis in axes})
    channels = np.moveaxis(found.values, inner, range(-len(inner), 0)).reshape(
        -1, int(np.prod([kernel.shape[axis] for axis in inner]))
    )
    assert max(len(np.unique(channel)) for channel in channels) == count
    assert distinct_values(found.values, channel_axes=axes) == count
    np.testing.assert_array_equal(found.values == 0, kernel == 0)
    assert len(found.centroids) <= count * len(channels)


def test_a_channel_has_the_values_that_it_would_have_alone():
    kernel = np.random.default_rng(0).normal(size=(40, 3))
    found = clustered(kernel, 5, initialization="linear", channel_axes=[1])
    for channel in range(3):
        alone = clustered(kernel[:, channel], 5, initialization="linear")
        np.testing.assert_array_equal(found.values[:, channel], alone.values)


def test_centroids_begin_where_the_method_says():
    values = np.array([0.0, 0.0, 0.0, 1.0, 2.0, 12.0])
    assert initial_centroids(values, 3, initialization="linear").tolist() == [0.0, 6.0, 12.0]
    assert initial_centroids(values, 3, initialization="density").tolist() == [0.0, 0.0, 2.0]
    drawn = initial_centroids(values, 3, initialization="random", seed=1)
    assert ((drawn >= 0) & (drawn <= 12) & np.isfinite(drawn)).all()
    assert set(initial_centroids(values, 3, seed=1)) <= set(values)
    assert initial_centroids(values, 4).tolist() == [0.0, 1.0, 2.0, 12.0]


def test_far_weights_are_likelier_to_be_drawn_in_proportion_to_their_squared_distance():
    # From 0 the others lie 1 and 3 away, so that the second draw is 3 nine times of ten; from 3 they lie 3 and 2
    # away, from 1 they lie 1 and 2. Each first draw comes a third of the time:
    #   P(0 and 3) = (9/10 + 9/13) / 3 = 0.531
    often = sum(
        initial_centroids([0.0, 1.0, 3.0], 2, seed=seed).tolist() == [0.0, 3.0]
        for seed in range(3000)
    )
    assert often / 3000 == pytest.approx(0.531, abs=4 * (0.25 / 3000) ** 0.5)


@given(weights(20), st.integers(2, 5), SEEDS)
def test_the_same_seed_draws_the_same(values, count, seed):
    for beginning in ("kmeans_plus_plus", "random"):
        first, second = (
            initial_centroids(values, count, initialization=beginning, seed=seed) for _ in range(2)
        )
        np.testing.assert_array_equal(first, second)


@given(weights(), COUNTS, SEEDS, st.booleans())
def test_weights_that_moved_are_clustered_no_worse_than_they_were(values, count, seed, zeros):
    before = clustered(values, count, preserve_zeros=zeros)
    moved = before.values + np.random.default_rng(seed).normal(size=len(values))
    if zeros:
        moved[values == 0] = 0

    after = reclustered(moved, before, preserve_zeros=zeros)

    assert len(after.centroids) <= len(before.centroids)
    if zeros:
        np.testing.assert_array_equal(after.values == 0, values == 0)
        # A cluster never loses its place to the zeros', nor by a mean that is zero by chance.
        error, was = ((c.values - moved) ** 2 for c in (after, before))
        assert error.sum() <= was.sum() + rounding(moved)
    else:
        assert squared_error(moved, after.centroids) <= squared_error(
            moved, before.centroids
        ) + rounding(moved)


def test_weights_that_moved_far_change_their_cluster():
    before = clusters_of([0.0, 0.0, 1.0, 1.0])
    after = reclustered([0.0, 1.0, 1.0, 1.25], before)
    assert after.values.tolist() == [0.0, 13 / 12, 13 / 12, 13 / 12]


def test_channels_that_moved_are_clustered_by_themselves():
    before = clusters_of([[0.0, 5.0], [0.0, 6.0], [1.0, 6.0]], channel_axes=[1])
    after = reclustered([[0.0, 5.0], [1.0, 5.0], [1.0, 6.0]], before, channel_axes=[1])
    assert after.values.tolist() == [[0.0, 5.0], [1.0, 5.0], [1.0, 6.0]]
    assert after.assignment.tolist() == [[0, 2], [1, 2], [1, 3]]


@given(weights())
def test_equal_weights_are_found_as_clusters(values):
    found = clusters_of(values)
    np.testing.assert_array_equal(found.values, values)
    assert len(found.centroids) == len(np.unique(values)) == distinct_values(values)


@pytest.mark.parametrize(
    ("values", "arguments", "said"),
    [
        ([1.0, 2.0], {"count": 3}, "expected at least 3 weights for 3 clusters, got 2"),
        (
            np.ones((3, 3, 8)),
            {"count": 16, "channel_axes": [2]},
            "expected at least 16 weights in each channel for 16 clusters, got 9",
        ),
        ([1.0, 2.0], {"count": 1}, "expected at least 2 clusters, got 1"),
        ([1.0, np.nan], {"count": 2}, "expected finite weights, got NaN or infinity"),
        (
            [1.0, 2.0],
            {"count": 2, "initialization": "midpoint"},
            "initialization must be one of 'kmeans_plus_plus', 'linear', 'density', 'random', not 'midpoint'",
        ),
    ],
)
def test_what_can_not_be_clustered_is_refused(values, arguments, said):
    with pytest.raises(ValueError, match=said):
        clustered(values, **arguments)
