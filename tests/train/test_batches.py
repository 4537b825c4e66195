"""What is fitted on: every sample once an epoch, and nothing that waits when an epoch ends."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.train.batches import batches


def read(made):
    """The samples of each batch: their places, and what was wanted of them."""
    return [
        (inputs[0].numpy().tolist(), wanted["target_0"].numpy().tolist())
        for inputs, wanted in made
    ]


def numbered(count):
    return [np.arange(count, dtype=np.float32)], {"target_0": -np.arange(count, dtype=np.float32)}


@given(st.integers(1, 40), st.integers(1, 50), st.booleans())
def test_each_sample_comes_once_with_what_is_wanted_of_it(count, size, shuffled):
    found = read(batches(numbered(count), size, shuffled=shuffled))
    assert [len(places) for places, _ in found[:-1]] == [size] * (len(found) - 1)
    assert sorted(place for places, _ in found for place in places) == list(range(count))
    assert all(wanted == [-place for place in places] for places, wanted in found)


def test_in_order_unless_shuffled_and_then_otherwise_each_epoch_and_the_same_for_a_seed():
    def epochs(seed):
        keras.utils.set_random_seed(seed)
        made = batches(numbered(64), 64, shuffled=True)
        return [read(made)[0][0] for _ in range(2)]

    assert read(batches(numbered(5), 3))[0][0] == [0, 1, 2]
    first, second = epochs(1)
    assert first != second
    assert epochs(1) == [first, second]
    assert epochs(2) != [first, second]


@pytest.mark.parametrize("shuffled", [False, True])
def test_nothing_is_tuned_while_it_runs(shuffled):
    """TensorFlow 2.21 waits for the thread that does, up to a minute, wherever an iterator ends."""
    assert batches(numbered(8), 4, shuffled=shuffled).options().autotune.enabled is False
