"""Who wins: the race decides, and the trials between those that it can't tell apart."""

from strop.core.evaluation import Measurement
from strop.engine.pairs import Pair
from strop.search.final import by_merit


def pair(name, ratio, to_first=None):
    """A finalist at `ratio` of the baseline; against the first of them, a ratio and its interval's lower end."""
    against = to_first and Measurement(to_first[0], "ratio", to_first[1], 2.0, 24, 0.95)
    return Pair(name, Measurement(ratio, "ratio", ratio, ratio, 24, 0.95), 24, against)


def test_between_equals_in_the_race_the_trials_decide():
    pairs = [pair("slept", 0.0170), pair("woken", 0.0171, (1.006, 0.9))]
    assert by_merit(pairs, {"slept": 10.0, "woken": 8.8}) == ["woken", "slept"]
    assert by_merit(pairs, {"slept": 8.0, "woken": 8.8}) == ["slept", "woken"]


def test_what_the_race_tells_apart_or_puts_well_behind_stays_behind():
    pairs = [
        pair("told apart", 0.18, (1.02, 1.01)),
        pair("behind", 0.19, (1.1, 0.9)),
        pair("first", 0.17),
    ]
    trials = {"first": 10.0, "behind": 1.0, "told apart": 1.0}
    assert by_merit(pairs, trials) == ["first", "told apart", "behind"]
