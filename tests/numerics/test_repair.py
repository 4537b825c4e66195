import math

from hypothesis import given
from hypothesis import strategies as st

from strop.numerics.repair import (
    errors_alone,
    fewest_left_out,
    rank_by_error,
)

LAYERS = tuple(f"layer{i}" for i in range(40))


@given(st.integers(1, 40), st.sets(st.integers(0, 39), min_size=1))
def test_what_is_left_out_suffices_and_reaches_no_further_than_it_must(length, needed):
    ranked = LAYERS[:length]
    wanted = {LAYERS[i % length] for i in needed}
    shortest = max(ranked.index(name) for name in wanted) + 1
    tries = []

    def holds(kept):
        tries.append(kept)
        return wanted <= set(kept)

    found = fewest_left_out(ranked, holds, refinements=4)

    assert wanted <= set(found) <= set(ranked[:shortest])
    # Doubling takes ⌈log₂ k⌉ + 1 tries, halving as many at most, putting back four.
    assert len(tries) <= 2 * (math.ceil(math.log2(shortest)) + 1) + 4


def test_where_nothing_helps_there_is_no_repair():
    assert fewest_left_out(LAYERS, lambda kept: False) is None


def test_a_layer_that_was_ranked_too_high_goes_back():
    found = fewest_left_out(LAYERS, lambda kept: {"layer0", "layer3"} <= set(kept))

    assert found == ("layer0", "layer3")


def test_layers_rank_by_the_error_each_causes_and_equal_ones_keep_their_order():
    assert rank_by_error([("a", 0.1), ("b", 0.3), ("c", 0.1)]) == ["b", "a", "c"]


@given(st.integers(1, 40), st.integers(1, 40))
def test_each_layer_is_asked_about_once_and_no_more_often_than_allowed(length, trials):
    asked = []

    def error_leaving(left):
        asked.append(set(LAYERS[:length]) - set(left))
        return float(len(asked))

    found = errors_alone(LAYERS[:length], error_leaving, trials=trials)

    assert [name for name, _ in found] == list(LAYERS[:length])
    assert len(asked) <= trials
    assert all(name in asked[int(error) - 1] for name, error in found)
    assert sum(map(len, asked)) == length
