"""Intervals for what strop measures: medians of timings, ratios of paired timings, drops in quality.

SciPy's statistics take over a second to import, so they are imported where they are used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Interval(NamedTuple):
    """A point estimate with the two ends of its confidence interval."""

    value: float
    low: float
    high: float


def median_interval(samples: ArrayLike, confidence: float = 0.95) -> Interval:
    """Return the median with a distribution-free interval.

    The ends are order statistics: the number of samples below the true median is binomial with p = ½,
    whatever the distribution (Conover, *Practical Nonparametric Statistics*, 3rd ed., 1999, section 3.2).
    With fewer than six samples the interval is the whole range.

    Args:
        samples: Independent observations, any unit.
        confidence: Level of the interval.

    Raises:
        ValueError: If there are no samples.

    Example:
        >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
        Interval(value=5.5, low=2.0, high=9.0)
    """
    from scipy.stats import binom

    ordered = np.sort(np.asarray(samples, np.float64))
    count = len(ordered)
    if not count:
        raise ValueError("expected at least one sample")
    # The largest k with P(fewer than k below the median) <= (1 - confidence) / 2.
    below = int(binom.ppf((1 - confidence) / 2, count, 0.5))
    low, high = ordered[max(below - 1, 0)], ordered[min(count - below, count - 1)]
    return Interval(float(np.median(ordered)), float(low), float(high))


def ratio_interval(
    candidate: ArrayLike, reference: ArrayLike, confidence: float = 0.95
) -> Interval:
    """Return the ratio candidate / reference of paired timings, with its interval.

    The pairs are rounds measured one right after the other, so that what disturbs a machine slowly (its
    clock, its neighbours) falls on both; the ratio of a pair is free of it. On the logarithms of the
    ratios stands Wilcoxon's signed-rank interval, whose centre is the Hodges–Lehmann estimate
    (Hollander, Wolfe, Chicken, *Nonparametric Statistical Methods*, 3rd ed., 2014, section 3.3): rounds
    with a spike in one half move it little, and it supposes no more than symmetry, which holds between equals.
    Fewer rounds than the signed-rank statistic has levels for (five at 95 %) get Student's interval instead,
    which is wide and knows it.

    Neighbouring rounds that resemble each other would narrow the interval wrongly. So it is widened as
    ``n / τ`` independent rounds would have it, τ being the larger of what a first-order process with their
    lag-one correlation r has, ``(1 + r) / (1 − r)``, which few rounds suffice to see (Wilks, *Statistical
    Methods in the Atmospheric Sciences*, 2nd ed., 2006, eq. 5.12), and ``1 + 2 Σ r_k`` up to the first r_k
    that is not positive, which spikes hide less (Geyer, *Practical Markov chain Monte Carlo*, Statistical
    Science 7, 1992, section 3.3). Strong correlation can't be told fully from
    few rounds: with r = 0.6 and a dozen rounds or more, equals are told apart in 7 to 8 % of the cases at
    a nominal 5 %, with r = 0.8 in 11 to 13 %.

    Args:
        candidate: One figure a round, above zero.
        reference: The figures of the same rounds.
        confidence: Level of the interval.

    Raises:
        ValueError: If the two differ in length, there are fewer than two rounds, or a figure is not a finite
            number above zero.

    Example:
        >>> ratio = ratio_interval([2.0, 2.2, 4.0, 2.1, 2.0, 2.1, 1.9, 2.0], [1.0, 1.1, 2.0] + [1.0] * 5)
        >>> round(ratio.value, 2), ratio.low <= 2.0 <= ratio.high
        (2.0, True)
    """
    one, other = np.asarray(candidate, np.float64), np.asarray(reference, np.float64)
    count = len(one)
    if count < 2 or len(other) != count:
        raise ValueError(f"expected at least two rounds of both, got {count} and {len(other)}")
    if not all(np.all((side > 0) & np.isfinite(side)) for side in (one, other)):
        raise ValueError("expected finite figures above zero")
    logs = np.log(one) - np.log(other)
    # The whole range of n differences holds the centre with probability 1 - 2^(1-n), and no interval made
    # of their ranks can do better.
    centre, low, high = (
        _signed_rank(logs, confidence)
        if 2.0 ** (1 - count) <= 1 - confidence
        else _student(logs, confidence)
    )
    widening = _widening(logs, confidence)
    low, high = centre - (centre - low) * widening, centre + (high - centre) * widening
    # With hardly two independent rounds left, Student's quantile takes the interval anywhere. A centre further from all
    # rounds than they are from each other is not to be feared, however they hang together.
    reach = float(np.ptp(logs))
    low, high = max(low, logs.min() - reach), min(high, logs.max() + reach)
    return Interval(math.exp(centre), math.exp(low), math.exp(high))


def with_spread(ratio: Interval, spread: float, confidence: float = 0.95) -> Interval:
    """Return a ratio's interval widened by an independent uncertainty that no round can show.

    Args:
        ratio: What the rounds showed.
        spread: Standard deviation of the logarithm of what they could not.
        confidence: Level of the interval.

    Example:
        >>> widened = with_spread(Interval(1.0, 0.99, 1.01), 0.01)
        >>> round(widened.low, 3), round(widened.high, 3)
        (0.978, 1.022)
    """
    from scipy.stats import norm

    value, low, high = (math.log(end) for end in ratio)
    more = float(norm.ppf((1 + confidence) / 2)) * spread
    return Interval(
        ratio.value,
        math.exp(value - math.hypot(value - low, more)),
        math.exp(value + math.hypot(high - value, more)),
    )


def _signed_rank(values: NDArray[np.float64], confidence: float) -> Interval:
    from scipy.stats import norm

    count = len(values)
    walsh = np.sort(((values[:, None] + values[None, :]) / 2)[np.triu_indices(count)])
    # The normal approximation of the signed-rank statistic's quantile, rounded outward.
    mean, spread = len(walsh) / 2, math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
    inward = int(max(mean - norm.ppf((1 + confidence) / 2) * spread, 0))
    return Interval(float(np.median(walsh)), float(walsh[inward]), float(walsh[-1 - inward]))


def _student(values: NDArray[np.float64], confidence: float) -> Interval:
    from scipy.stats import t

    count, mean = len(values), float(values.mean())
    quantile = float(t.ppf((1 + confidence) / 2, count - 1))
    half = quantile * float(values.std(ddof=1)) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)


def _widening(series: NDArray[np.float64], confidence: float) -> float:
    """Return how much wider an interval must be for the autocorrelation of its rounds."""
    from scipy.stats import t

    count = len(series)
    independent = max(count / _correlation_time(series), 2.0)
    tail = (1 + confidence) / 2
    quantiles = float(t.ppf(tail, independent - 1) / t.ppf(tail, count - 1))
    return max(quantiles * math.sqrt(count / independent), 1.0)


def _correlation_time(series: NDArray[np.float64]) -> float:
    """Return how many neighbouring rounds tell as much as one: 1 where they are independent.

    It is found on ranks, because spikes would hide the correlation of the rest.
    """
    from scipy.stats import rankdata

    count = len(series)
    ranks = rankdata(series)
    ranks = ranks - ranks.mean()
    energy = float(np.dot(ranks, ranks))
    if count < 6 or energy == 0.0:  # too few to tell
        return 1.0
    total, first = 0.0, 0.0
    for lag in range(1, count // 3 + 1):
        # An estimate lies too low by about this much (Kendall, Biometrika 41, 1954).
        bias = (1 + 3 * first) / count
        correlation = float(np.dot(ranks[lag:], ranks[:-lag])) / energy + bias
        if correlation <= 0:
            break
        if lag == 1:
            correlation = first = min(correlation / (1 - 3 / count), 0.9)
        total += correlation
    return max((1 + first) / (1 - first), 1 + 2 * total)


def simultaneous_confidence(confidence: float, comparisons: int) -> float:
    """Return the level of each of several intervals that all hold at once with `confidence`.

    Bonferroni's bound, which supposes nothing about how the comparisons depend on each other.

    Example:
        >>> round(simultaneous_confidence(0.95, 5), 4)
        0.99
    """
    return 1 - (1 - confidence) / max(comparisons, 1)


def proportion_interval(successes: int, count: int, confidence: float = 0.95) -> Interval:
    """Return a proportion with Wilson's score interval, which stays inside [0, 1] and has width at 0 and 1.

    Example:
        >>> proportion_interval(0, 100).high > 0.03
        True
    """
    from scipy.stats import binomtest

    if not count:
        return Interval(0.0, 0.0, 1.0)
    found = binomtest(successes, count).proportion_ci(confidence, method="wilson")
    return Interval(successes / count, float(found.low), float(found.high))


def paired_drop_interval(
    reference: ArrayLike, candidate: ArrayLike, confidence: float = 0.95
) -> Interval:
    """Return how much the mean score of `candidate` lies below `reference`'s, with its paired interval.

    For scores of 0 and 1 it is the score interval for the difference of paired proportions (Tango,
    *Equivalence test and confidence interval for the difference in proportions for the paired-sample design*,
    Statistics in Medicine 17, 1998): all the drops that the counts of lost and won answers do not contradict.
    It holds its level for rare losses too, where intervals around the estimate are too short: 300 answers of
    which none is lost allow a drop of 1.3 %. For other scores it is Student's, on the differences.

    Args:
        reference: One score a sample.
        candidate: The scores of the same samples.
        confidence: Level of the interval.

    Raises:
        ValueError: If there are no samples, or the two differ in length.

    Example:
        >>> drop = paired_drop_interval([1.0] * 300, [1.0] * 300)
        >>> drop.value, round(drop.high, 4)
        (0.0, 0.0126)
    """
    from scipy.stats import t

    one, other = np.asarray(reference, np.float64), np.asarray(candidate, np.float64)
    count = len(one)
    if not count or len(other) != count:
        raise ValueError(f"expected as many scores of both, got {count} and {len(other)}")
    differences = one - other
    drop = float(differences.mean())
    if set(np.unique(one)) | set(np.unique(other)) <= {0.0, 1.0}:
        lost, won = int((differences > 0).sum()), int((differences < 0).sum())
        high = _largest_drop(lost, won, count, confidence)
        return Interval(drop, -_largest_drop(won, lost, count, confidence), high)
    if count == 1:
        return Interval(drop, -math.inf, math.inf)
    half = float(t.ppf((1 + confidence) / 2, count - 1)) * float(differences.std(ddof=1))
    half /= math.sqrt(count)
    return Interval(drop, drop - half, drop + half)


def _largest_drop(lost: int, won: int, count: int, confidence: float) -> float:
    """Return the largest drop that Tango's score test does not reject."""
    from scipy.stats import norm

    squared_quantile = float(norm.ppf((1 + confidence) / 2)) ** 2

    def is_rejected(drop: float) -> bool:
        # The most likely share of won answers, were this the drop, is the root of a·q² + b·q + c.
        a = 2 * count
        b = (2 * count - lost + won) * drop - lost - won
        c = -won * drop * (1 - drop)
        won_share = (math.sqrt(b * b - 4 * a * c) - b) / (2 * a)
        variance = count * (2 * won_share + drop * (1 - drop))
        return (lost - won - count * drop) ** 2 > squared_quantile * variance

    inside, outside = (lost - won) / count, 1.0
    for _ in range(50):  # halvings: to the last bits of a float
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if is_rejected(middle) else (middle, outside)
    return inside


def bootstrap_interval(
    statistic: Callable[[NDArray[np.intp]], float],
    count: int,
    *,
    confidence: float = 0.95,
    resamples: int = 400,
    seconds: float = math.inf,
    seed: int = 0,
) -> Interval:
    """Return a statistic of samples with its percentile bootstrap interval.

    The ends are quantiles of the resampled figures, so that one figure at least must be expected beyond each. Where
    there is no time for as many resamples, or too few have a figure, nothing is known and the ends are infinite.

    Args:
        statistic: The figure for the samples of these indices; NaN where a resample has none.
        count: How many samples there are.
        confidence: Level of the interval.
        resamples: How many times to draw; more where the level needs more.
        seconds: About the longest to draw, as the time of one call tells; fewer resamples are drawn then.
        seed: For the drawing.

    Example:
        >>> bootstrap_interval(lambda chosen: 0.5, 10, seconds=0.0)
        Interval(value=0.5, low=-inf, high=inf)

    References:
        Efron, Tibshirani, *An Introduction to the Bootstrap*, 1993, section 13.3.
    """
    random = np.random.default_rng(seed)
    tail = (1 - confidence) / 2
    least = round(1 / tail)
    started = time.perf_counter()
    value = statistic(np.arange(count))
    taken = max(time.perf_counter() - started, 1e-9)  # clocks have steps
    draws = int(min(max(resamples, least), seconds / taken))
    drawn: list[Any] = [
        statistic(random.integers(0, count, count).astype(np.intp))
        for _ in range(draws if draws >= least else 0)
    ]
    kept = [figure for figure in drawn if not math.isnan(figure)]
    if len(kept) < least:
        return Interval(value, -math.inf, math.inf)
    low, high = np.quantile(kept, [tail, 1 - tail])
    return Interval(value, min(float(low), value), max(float(high), value))
