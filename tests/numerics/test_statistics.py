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
    assert 0.0 < interval.high < 0.05


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
