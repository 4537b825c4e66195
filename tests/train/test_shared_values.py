"""Which weights count as sharing values."""

import keras
import numpy as np
import pytest

from strop.train.kernels import Kernel
from strop.train.shared_values import SharedValues, are_shared


def kernel(weights):
    variable = keras.Variable(np.asarray(weights, "float32"))
    return Kernel("layer", variable, (0,))


def test_weights_known_to_be_clustered_count_as_such_where_any_two_are_equal():
    weights = np.arange(128).reshape(8, 16)
    assert SharedValues.equal(kernel(weights), is_told=True) is None
    weights[0, 0] = weights[1, 1]
    assert SharedValues.equal(kernel(weights)) is None
    assert SharedValues.equal(kernel(weights), is_told=True).count() == 127


@pytest.mark.parametrize(
    ("values", "zeros", "channel_axes", "wanted"),
    [
        (8, 0.0, (), True),
        (256, 0.0, (), True),
        (257, 0.0, (), False),  # more than the most
        (1, 0.0, (), False),  # never trained
        (8, 0.9, (), True),
        (600, 0.9, (), False),  # of pruned weights each one is another, and there are few
        (300, 0.0, (1,), False),
        (16, 0.5, (1,), True),
    ],
)
def test_weights_share_values_where_there_are_two_at_least_for_each_that_is_not_zero(
    values, zeros, channel_axes, wanted
):
    random = np.random.default_rng(0)
    weights = 1.0 + np.arange(64 * 64).reshape(64, 64) % values
    weights[random.random(weights.shape) < zeros] = 0
    assert are_shared(weights, channel_axes) is wanted


def test_channels_of_zeros_alone_keep_no_others_from_counting():
    weights = np.tile([[1.0, 0.0, 5.0], [2.0, 0.0, 6.0]], (4, 1))
    assert are_shared(weights, (1,))
