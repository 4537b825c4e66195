"""Weights of half precision are taught as those of whole precision are."""

import keras
import numpy as np
import pytest
from keras import ops

from strop.train.whole_precision import WholePrecision, is_half


def weight_of(values, dtype="bfloat16"):
    return keras.Variable(np.asarray(values, np.float32), dtype=dtype)


def numbers(variable):
    return np.asarray(ops.convert_to_numpy(ops.cast(variable, "float32")))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_small_steps_add_up(dtype):
    weight = weight_of([1.0, -1.0], dtype)
    optimizer = WholePrecision(keras.optimizers.SGD(2.0**-12))
    for _ in range(2**8):
        optimizer.apply([ops.ones((2,), dtype)], [weight])
    # 256 steps of 1/4096, each a sixteenth of what is between neighbours in bfloat16 just below 1.
    np.testing.assert_array_equal(numbers(weight), [1 - 2**-4, -1 - 2**-4])


def test_whole_weights_beside_half_ones_are_taken_as_they_are():
    half, whole = weight_of([1.0]), weight_of([1.0], "float32")
    optimizer = WholePrecision(keras.optimizers.SGD(2.0**-12))
    optimizer.apply([ops.ones((1,), "bfloat16"), ops.ones((1,))], [half, whole])
    assert (numbers(half)[0], numbers(whole)[0]) == (1.0, 1 - 2**-12)
    assert is_half(half)
    assert not is_half(whole)


def test_what_others_write_into_weights_is_gone_on_from():
    weight = weight_of([1.0, 1.0])
    optimizer = WholePrecision(keras.optimizers.SGD(2.0**-12))
    optimizer.apply([ops.ones((2,), "bfloat16")], [weight])
    weight.assign(ops.convert_to_tensor([0.0, 1.0], "bfloat16"))
    for _ in range(15):
        optimizer.apply([ops.ones((2,), "bfloat16")], [weight])
    # The second was written over with what it was, and has all of its 16 steps.
    np.testing.assert_array_equal(numbers(weight), [-15 * 2**-12, 1 - 2**-8])


def test_a_constraint_holds_for_the_weights():
    weight = weight_of([1.0, -1.0])
    weight.constraint = keras.constraints.NonNeg()
    optimizer = WholePrecision(keras.optimizers.SGD(0.5))
    optimizer.apply([ops.ones((2,), "bfloat16")], [weight])
    np.testing.assert_array_equal(numbers(weight), [0.5, 0.0])


def test_averages_over_steps_end_in_the_weights():
    weight = weight_of([1.0])
    optimizer = WholePrecision(keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5))
    for _ in range(2):
        optimizer.apply([ops.ones((1,), "bfloat16")], [weight])
    assert numbers(weight)[0] == 0.0
    optimizer.finalize_variable_values([weight])
    # 0.5 after the first step, and 0.5 · 0.5 + 0.5 · 0 after the second.
    assert numbers(weight)[0] == 0.25


def test_its_rate_and_its_steps_are_those_of_the_optimizer_within():
    weight = weight_of([1.0])
    optimizer = WholePrecision(keras.optimizers.SGD(0.5))
    optimizer.apply([ops.ones((1,), "bfloat16")], [weight])
    optimizer.learning_rate = 0.25
    assert float(optimizer.learning_rate) == float(optimizer.within.learning_rate) == 0.25
    assert int(optimizer.iterations) == 1
