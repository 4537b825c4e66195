import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.numerics.grid import grid_for_range

reals = st.floats(-1e6, 1e6, width=32)
bits = st.integers(2, 16)


@given(reals, reals, st.floats(0, 1), bits)
def test_a_value_inside_the_range_comes_back_within_half_a_step(one, other, share, bits):
    low, high = min(one, other), max(one, other)
    grid = grid_for_range(np.array(low), np.array(high), bits=bits)
    value = np.array(low + share * (high - low))
    back = grid.decode(grid.encode(value))
    # Half a step; besides, the scale and the result are each rounded to float32, to one part in 2**24 of at
    # most 2**bits steps.
    assert abs(float(back) - float(value)) <= (0.5 + 2.0 ** (bits - 23)) * float(grid.scale)


@given(reals, reals, bits)
def test_zero_is_always_exact(one, other, bits):
    grid = grid_for_range(np.array(min(one, other)), np.array(max(one, other)), bits=bits)
    assert float(grid.decode(grid.encode(np.array(0.0)))) == 0.0


@given(reals, reals, bits)
def test_decoding_then_encoding_changes_no_code(one, other, bits):
    low, high = min(one, other), max(one, other)
    if high - low < 1e-30:
        low, high = -1.0, 1.0  # steps of subnormal size have no exact quotients
    grid = grid_for_range(np.array(low), np.array(high), bits=bits)
    codes = np.arange(grid.low, grid.high + 1)
    np.testing.assert_array_equal(grid.encode(grid.decode(codes)), codes)


@given(reals, reals, reals, reals, bits)
def test_larger_values_never_get_smaller_codes(one, other, this, that, bits):
    grid = grid_for_range(np.array(min(one, other)), np.array(max(one, other)), bits=bits)
    assert grid.encode(np.array(min(this, that))) <= grid.encode(np.array(max(this, that)))


@given(st.permutations(range(5)))
def test_channels_have_grids_of_their_own(order):
    low = np.array([-1.0, -0.5, 0.0, -3.0, 0.25])
    high = np.array([1.0, 0.0, 2.0, 5.0, 0.5])
    values = np.linspace(low, high, 9)

    grid, moved = grid_for_range(low, high), grid_for_range(low[order], high[order])

    np.testing.assert_array_equal(grid.encode(values)[:, order], moved.encode(values[:, order]))


def test_nan_has_no_code():
    with pytest.raises(ValueError, match="got NaN"):
        grid_for_range(np.array(-1.0), np.array(1.0)).encode(np.array([0.0, np.nan]))


def test_values_outside_get_the_ends():
    grid = grid_for_range(np.array(-1.0), np.array(1.0))
    assert grid.encode(np.array([-np.inf, np.inf])).tolist() == [-128, 127]


@pytest.mark.parametrize(
    ("low", "high", "bits"), [(1.0, 0.0, 8), (np.nan, 1.0, 8), (0.0, 1.0, 17)]
)
def test_what_is_no_range_is_refused(low, high, bits):
    with pytest.raises(ValueError, match=r"expected minimum|bits must lie"):
        grid_for_range(np.array(low), np.array(high), bits=bits)
