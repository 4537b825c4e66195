"""Schedules say when, and how much."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.numerics.schedules import ConstantSparsity, PolynomialDecay

SHARES = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("power", "wanted"),
    [(3, [0.0, 0.2, 0.725, 0.8, 0.8]), (1, [0.0, 0.2, 0.5, 0.8, 0.8])],
)
def test_the_share_follows_the_papers_equation(power, wanted):
    # s_f + (s_i − s_f)·(1 − t)^power halfway: 0.8 − 0.6/8 = 0.725, and 0.8 − 0.6/2 = 0.5.
    schedule = PolynomialDecay(0.2, 0.8, begin=100, end=300, power=power)
    found = [schedule.sparsity_at(step) for step in (99, 100, 200, 300, 10_000)]
    assert found == pytest.approx(wanted)


@given(SHARES, SHARES, st.integers(0, 50), st.integers(0, 50), st.floats(0.5, 5))
def test_a_growing_share_never_falls_and_stays_between_its_ends(a, b, begin, length, power):
    initial, final = sorted((a, b))
    schedule = PolynomialDecay(initial, final, begin, begin + length, power)
    shares = [schedule.sparsity_at(step) for step in range(begin, begin + length + 3)]
    assert shares[-1] == final == schedule.target
    rounding = 4 * np.finfo(float).eps
    assert all(late >= early - rounding for early, late in itertools.pairwise(shares))
    assert all(initial - rounding <= share <= final + rounding for share in shares)


@given(st.integers(0, 20), st.integers(0, 60), st.integers(1, 30))
def test_the_last_choice_of_masks_is_at_the_final_share(begin, length, frequency):
    schedule = PolynomialDecay(0.0, 0.5, begin, begin + length, frequency=frequency)
    steps = [step for step in range(begin + length + 40) if schedule.is_update(step)]
    assert (steps[0], steps[-1]) == (begin, begin + length)
    assert schedule.sparsity_at(steps[-1]) == 0.5


def test_a_constant_share_is_chosen_anew_until_its_end_and_stays_after_it():
    schedule = ConstantSparsity(0.4, begin=3, end=9, frequency=3)
    assert [step for step in range(40) if schedule.is_update(step)] == [3, 6, 9]
    assert (schedule.sparsity_at(2), schedule.sparsity_at(39), schedule.target) == (0.0, 0.4, 0.4)


@pytest.mark.parametrize(
    ("made", "wrong"),
    [
        (lambda: ConstantSparsity(1.0), "expected a sparsity from 0 to below 1, got 1.0"),
        (lambda: ConstantSparsity(-0.1), "expected a sparsity from 0 to below 1, got -0.1"),
        (lambda: ConstantSparsity(float("nan")), "expected a sparsity from 0 to below 1, got nan"),
        (lambda: ConstantSparsity(0.5, begin=-1), "expected a first step that is not negative, got begin=-1"),
        (lambda: ConstantSparsity(0.5, 8, 7), "expected a last step not before the first, got begin=8, end=7"),
        (lambda: ConstantSparsity(0.5, frequency=0), "expected at least one step from update to update, got frequency=0"),
        (lambda: PolynomialDecay(0.0, 1.5, 0, 9), "expected a sparsity from 0 to below 1, got 1.5"),
        (lambda: PolynomialDecay(0.0, 0.5, 0, -1), "expected a last step that is not negative, got end=-1"),
        (lambda: PolynomialDecay(0.0, 0.5, 0, 9, power=0), "expected a positive power, got 0"),
    ],
)  # fmt: skip
def test_a_schedule_that_cannot_be_says_what_could(made, wrong):
    with pytest.raises(ValueError, match="expected") as caught:
        made()
    assert str(caught.value) == wrong
