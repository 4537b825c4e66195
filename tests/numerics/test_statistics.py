import math
import time

import numpy as np
import pytest

from strop.numerics import statistics as st


def _autocorrelated(random, count, correlation, spread):
    values = np.empty(count)
    values[0] = random.normal(0, spread)
    for i in range(1, count):
        fresh = random.normal(0, spread * np.sqrt(1 - correlation**2))
        values[i] = correlation * values[i - 1] + fresh
    return values


def _equals(random, count, correlation):
    """Two timings of one thing: shared drift, each its own disturbances and spikes."""
    shared = _autocorrelated(random, count, 0.8, 0.1) + 0.3 * np.linspace(0, 1, count)
    sides = []
    for _ in range(2):
        spikes = np.where(random.random(count) < 0.08, random.pareto(1.5, count) * 0.3, 0)
        sides.append(np.exp(shared + _autocorrelated(random, count, correlation, 0.02) + spikes))
    return sides


@pytest.mark.parametrize("rounds", [3, 8, 20])
def test_equals_are_told_apart_in_at_most_eight_percent(rounds):
    random = np.random.default_rng(7)
    told = 0
    for _ in range(200):
        interval = st.ratio_interval(*_equals(random, rounds, 0.2))
        told += not interval.low <= 1.0 <= interval.high
    assert told <= 16  # of 200


def test_a_tenth_faster_is_seen_through_drift_and_spikes():
    candidate, reference = _equals(np.random.default_rng(1), 30, 0.0)
    interval = st.ratio_interval(0.9 * candidate, reference)
    assert interval.high < 1.0
    assert interval.low <= 0.9 <= interval.high


def test_the_ratio_of_the_swapped_pair_is_the_inverse():
    one, other = _equals(np.random.default_rng(2), 12, 0.3)
    there, back = st.ratio_interval(one, other), st.ratio_interval(other, one)
    assert there.value == pytest.approx(1 / back.value)
    assert there.low == pytest.approx(1 / back.high)


def test_a_single_round_gives_no_ratio():
    with pytest.raises(ValueError, match="at least two rounds"):
        st.ratio_interval([1.0], [1.0])


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_figures_that_are_no_timings_are_refused(bad):
    with pytest.raises(ValueError, match="finite figures above zero"):
        st.ratio_interval([1.0, bad], [1.0, 1.0])


def test_rounds_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match="got 3 and 2"):
        st.ratio_interval([1.0, 1.0, 1.0], [1.0, 1.0])


def test_the_medians_interval_holds_its_level_on_heavy_tails():
    random = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        interval = st.median_interval(random.standard_cauchy(25))
        held += interval.low <= 0.0 <= interval.high
    # 95 % at least; three standard deviations of 300 draws are 11.
    assert held >= 285 - 11


def test_no_changed_answer_still_leaves_room_for_a_drop():
    right = np.ones(100)
    interval = st.paired_drop_interval(right, right)
    assert interval.value == 0.0
    # The largest drop d with n·d² ≤ z²·d·(1 − d): z² / (n + z²) with z = 1.96.
    assert interval.high == pytest.approx(3.8415 / 103.8415, abs=1e-5)
    assert interval.low == -interval.high


@pytest.mark.parametrize("share", [0.005, 0.01, 0.03])
def test_rare_losses_are_held_by_the_upper_bound(share):
    random = np.random.default_rng(6)
    right, held = np.ones(400), 0
    for _ in range(300):
        candidate = (random.random(400) >= share).astype(float)
        held += st.paired_drop_interval(right, candidate).high >= share
    # Above the bound at 97.5 % of the time; counts being whole, score bounds may fall 2 % short, and the draws
    # another three standard deviations of 0.9 %.
    assert held >= 300 * (0.975 - 0.02 - 0.027)


def test_gains_and_losses_mirror_each_other():
    random = np.random.default_rng(8)
    one, other = random.random(50) < 0.8, random.random(50) < 0.7
    there, back = st.paired_drop_interval(one, other), st.paired_drop_interval(other, one)
    assert (there.value, there.low, there.high) == (-back.value, -back.high, -back.low)


def test_all_answers_lost_is_a_drop_of_one():
    interval = st.paired_drop_interval(np.ones(20), np.zeros(20))
    assert interval.value == pytest.approx(1.0)
    assert interval.high == pytest.approx(1.0)
    # Then the bound is (n − z²) / (n + z²).
    assert interval.low == pytest.approx(16.1585 / 23.8415, abs=1e-5)


def test_graded_scores_get_an_interval_of_their_differences():
    random = np.random.default_rng(9)
    reference = random.random(200)
    noise = random.normal(0, 0.01, 200)
    interval = st.paired_drop_interval(reference, reference - 0.05 + noise)
    assert interval.low < 0.05 < interval.high
    assert interval.high - interval.low < 0.01  # ± 2 · 0.01 / √200


def test_the_drop_of_zero_one_scores_is_held_by_its_interval():
    random = np.random.default_rng(4)
    held = 0
    for _ in range(300):
        reference = random.random(400) < 0.9
        candidate = np.where(random.random(400) < 0.05, ~reference, reference)
        # Flipping one in twenty loses 0.9 · 0.05 and wins 0.1 · 0.05.
        interval = st.paired_drop_interval(reference, candidate)
        held += interval.low <= 0.04 <= interval.high
    assert held >= 285 - 11


def test_several_intervals_share_the_error():
    assert st.simultaneous_confidence(0.95, 5) == pytest.approx(0.99)
    assert st.simultaneous_confidence(0.95, 0) == 0.95


def test_no_success_still_leaves_a_width():
    interval = st.proportion_interval(0, 50)
    assert interval.low == 0.0
    assert 0.03 < interval.high < 0.1


def test_the_bootstrap_repeats_for_a_seed():
    values = np.random.default_rng(5).normal(1.0, 1.0, 200)

    def mean(indices):
        return float(values[indices].mean())

    one, other = (st.bootstrap_interval(mean, 200, seed=9) for _ in range(2))
    assert one == other
    assert one.low < one.value < one.high


def test_a_bootstrap_that_has_no_time_for_its_level_knows_nothing():
    def figure(indices):
        return float(indices.mean())

    assert st.bootstrap_interval(figure, 9, seconds=0.0)[1:] == (-math.inf, math.inf)
    assert st.bootstrap_interval(lambda _: math.nan, 9)[1:] == (-math.inf, math.inf)


def test_a_slow_statistic_is_asked_as_often_as_there_is_time_for():
    calls = []

    def slow(indices):
        calls.append(1)
        end = time.perf_counter() + 1e-3
        while time.perf_counter() < end:
            pass
        return float(indices.mean())

    found = st.bootstrap_interval(slow, 9, seconds=0.3, confidence=0.5)
    assert (
        len(calls) <= 301
    )  # beside the first, as many as a millisecond goes into three tenths of a second
    assert found.low < found.value < found.high


def test_a_high_level_draws_the_resamples_that_it_needs():
    calls = []
    st.bootstrap_interval(lambda _: calls.append(1) or 1.0, 9, confidence=0.999)
    assert len(calls) == 1 + 2000
