"""Grids: what has a code, how far rounding moves a number, and that zero never moves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.numerics.grids import (
    Grid,
    grid_for_range,
    largest_code,
    short,
    steps_of_least_error,
    steps_of_weights,
    symmetric_grid,
)

BITS = st.integers(2, 16)
SEEDS = st.integers(0, 2**31)
NUMBERS = st.floats(-1e4, 1e4, width=32)


@st.composite
def ranges(draw):
    low, high = sorted([draw(NUMBERS), draw(NUMBERS)])
    return np.array(low), np.array(high)


def kernel(seed, shape=(3, 3, 4, 5)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@given(ranges(), BITS)
def test_zero_has_an_exact_code(ends, bits):
    grid = grid_for_range(*ends, bits=bits)
    assert grid.low <= grid.zero_point <= grid.high
    assert grid.rounded(0.0) == 0.0


@given(ranges(), BITS, SEEDS)
def test_what_lies_in_the_range_moves_by_half_a_step_and_the_shift_of_the_range(ends, bits, seed):
    grid = grid_for_range(*ends, bits=bits)
    shares = np.random.default_rng(seed).uniform(size=100)
    values = (ends[0] + shares * (ends[1] - ends[0])).astype(np.float32)

    moved = np.abs(grid.rounded(values) - values)

    # Half a step for rounding, and where the range was moved to bring zero on a code, half a step more at its end;
    # float32 divides and multiplies by the step, each with a grain of 2**-23 of up to 2**bits steps.
    assert np.all(moved <= (1 + 2.0 ** (bits - 22)) * grid.scale)


@given(ranges(), BITS)
def test_rounding_twice_is_rounding_once(ends, bits):
    grid = grid_for_range(*ends, bits=bits)
    values = np.linspace(*ends, 50, dtype=np.float32)
    once = grid.rounded(values)
    np.testing.assert_array_equal(grid.rounded(once), once)


@given(ranges(), BITS)
def test_rounding_keeps_the_order(ends, bits):
    values = np.linspace(ends[0] - 1, ends[1] + 1, 200, dtype=np.float32)
    assert np.all(np.diff(grid_for_range(*ends, bits=bits).rounded(values)) >= 0)


@given(ranges(), BITS)
def test_codes_survive_what_they_stand_for(ends, bits):
    grid = grid_for_range(*ends, bits=bits)
    codes = np.unique(np.linspace(grid.low, grid.high, 300).astype(np.int32))
    np.testing.assert_array_equal(grid.encode(grid.decode(codes)), codes)


def test_the_ends_are_the_real_values_of_the_first_and_last_code():
    grid = grid_for_range(np.array(0.0), np.array(255.0))
    assert (grid.minimum, grid.maximum, grid.zero_point) == (0.0, 255.0, -128)


def test_a_range_of_zero_alone_has_a_grid():
    grid = grid_for_range(np.array(0.0), np.array(0.0))
    assert grid.rounded(0.0) == 0.0
    assert grid.scale > 0


@given(SEEDS, st.sampled_from([2, 4, 8]))
def test_the_largest_weight_of_each_channel_has_the_largest_code(seed, bits):
    weights = kernel(seed)
    codes = symmetric_grid(steps_of_weights(weights, [-1], bits=bits), bits=bits).encode(weights)
    assert np.abs(codes).max((0, 1, 2)).tolist() == [largest_code(bits)] * 5


@given(SEEDS, st.floats(0.01, 100), st.booleans())
def test_a_scale_of_a_channel_may_go_into_the_kernel_before_or_behind_rounding(
    seed, scale, is_negative
):
    """Which is why batch normalization need not be folded into the kernel while that is taught."""
    weights = kernel(seed, (6, 1))
    factor = np.float32(-scale if is_negative else scale)

    def rounded(array):
        return symmetric_grid(steps_of_weights(array, [-1])).rounded(array)

    # Equal but where float32 puts a quotient on the other side of a half: one step there.
    steps = steps_of_weights(weights * factor, [-1])
    apart = np.abs(rounded(weights * factor) - rounded(weights) * factor) / steps
    quotient = np.abs(weights / steps_of_weights(weights, [-1])) % 1
    is_tie = np.abs(quotient - 0.5) < 1e-3
    assert np.all(apart[~is_tie] < 1e-3)
    assert np.all(apart <= 1 + 1e-3)


def test_channels_may_lie_along_several_axes_or_none():
    weights = np.array([[1.0, 2.0], [4.0, 8.0]])
    assert steps_of_weights(weights, [0, 1]).shape == (2, 2)
    assert steps_of_weights(weights, [-2]).ravel() * 127 == pytest.approx([2, 8])
    assert steps_of_weights(weights, []).ravel() * 127 == pytest.approx([8])


def test_a_channel_of_zeros_has_a_step_that_is_not_nothing_beside_the_others():
    weights = np.array([[127.0, 0.0]])
    assert steps_of_weights(weights, [1]).tolist() == [[1.0, 2.0**-16]]
    assert steps_of_weights(0 * weights, [1]).tolist() == [[1.0, 1.0]]


@given(SEEDS, st.sampled_from([2, 3, 4, 8]))
def test_steps_of_least_error_have_no_more_of_it_than_the_widest(seed, bits):
    weights = kernel(seed)

    def error(steps):
        rounded = symmetric_grid(steps, bits=bits).rounded(weights)
        return np.square(rounded - weights, dtype=np.float64).sum((0, 1, 2))

    best = steps_of_least_error(weights, [-1], bits=bits)

    assert np.all(error(best) <= error(steps_of_weights(weights, [-1], bits=bits)))


def test_with_few_codes_the_least_error_cuts_an_outlier_off():
    weights = np.append(np.linspace(-1, 1, 999), 2.0).reshape(-1, 1)
    assert steps_of_least_error(weights, [1], bits=3)[0, 0] < 0.7 * 2.0 / 3


@given(SEEDS, st.integers(-100, 100))
def test_short_steps_are_near_and_end_in_zeros(seed, exponent):
    steps = np.exp2(np.random.default_rng(seed).uniform(size=50) + exponent).astype(np.float32)

    found = short(steps)

    assert np.all(np.abs(found / steps.astype(np.float64) - 1) <= 2.0**-14)
    assert not np.any(found.view(np.uint32) & (2**10 - 1))
    np.testing.assert_array_equal(short(found), found)


@pytest.mark.parametrize(
    ("ends", "bits", "wrong"),
    [
        ((1.0, 0.0), 8, "expected finite minimum <= maximum"),
        ((np.nan, 0.0), 8, "expected finite minimum <= maximum"),
        ((0.0, np.inf), 8, "expected finite minimum <= maximum"),
        ((0.0, 1.0), 1, r"bits must lie in 2\.\.16, not 1"),
        ((0.0, 1.0), 17, r"bits must lie in 2\.\.16, not 17"),
    ],
)
def test_ranges_without_a_grid_are_refused(ends, bits, wrong):
    with pytest.raises(ValueError, match=wrong):
        grid_for_range(*map(np.array, ends), bits=bits)


def test_steps_that_are_none_are_refused():
    with pytest.raises(ValueError, match="expected steps above 0"):
        symmetric_grid(np.array([0.1, 0.0]))


def test_a_grid_is_a_value():
    grid = grid_for_range(np.array(0.0), np.array(1.0))
    assert isinstance(grid, Grid)
    with pytest.raises(AttributeError):
        grid.low = 3
