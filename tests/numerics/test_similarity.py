import math

import numpy as np
import pytest

from strop.numerics import similarity


def test_equal_arrays_differ_by_nothing():
    array = np.array([1.0, -2.0, 0.0])
    assert similarity.max_abs_difference(array, array) == 0.0
    assert similarity.relative_error(array, array) == 0.0
    assert similarity.sqnr_db(array, array) == math.inf


def test_ten_times_less_noise_is_twenty_decibels_more():
    reference = np.array([3.0, 4.0])
    near, far = reference + np.array([0.0, 0.05]), reference + np.array([0.0, 0.5])
    gained = similarity.sqnr_db(reference, near) - similarity.sqnr_db(reference, far)
    assert gained == pytest.approx(20.0, abs=1e-9)  # a few rounding errors of float64 in 4.05 − 4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_candidate_that_is_not_finite_is_infinitely_far(bad):
    reference, candidate = np.array([1.0, 2.0]), np.array([1.0, bad])
    assert similarity.max_abs_difference(reference, candidate) == math.inf
    assert similarity.mean_abs_difference(reference, candidate) == math.inf
    assert similarity.sqnr_db(reference, candidate) == -math.inf


def test_a_mask_of_infinities_in_both_is_no_difference():
    reference = np.array([3.0, 4.0, -np.inf])
    candidate = np.array([3.0, 4.5, -np.inf])
    assert similarity.max_abs_difference(reference, candidate) == 0.5
    assert similarity.relative_error(reference, candidate) == 0.1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_reference_that_is_not_finite_gives_figures_all_the_same(bad):
    reference, candidate = np.array([1.0, bad]), np.array([1.0, 2.0])
    assert similarity.relative_error(reference, candidate) == math.inf
    assert similarity.sqnr_db(reference, candidate) == -math.inf


def test_a_row_with_nan_agrees_with_none():
    nan = np.array([[np.nan, 1.0]])
    assert similarity.top1_agreement(nan, nan) == 0.0


def test_noise_over_an_all_zero_reference_is_infinite():
    zero = np.zeros(3)
    assert similarity.relative_error(zero, zero + 1) == math.inf
    assert similarity.relative_error(zero, zero) == 0.0


def test_agreement_counts_rows_with_the_same_largest_entry():
    reference = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert similarity.top1_agreement(reference, reference[::-1]) == 0.0
    assert similarity.top1_agreement(reference, reference * 2) == 1.0
