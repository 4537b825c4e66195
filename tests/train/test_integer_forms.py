"""What is said of layers holds for Keras' own: which give codes on, what functions are, and why others stay in float."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers, ops

from strop.graph.keras_calls import calls_of
from strop.train.integer_forms import (
    ALONE,
    FIXED,
    GATES,
    JOINS,
    PASSING,
    WITHIN_KERNELS,
    function_of,
    is_of_channels,
    is_within_kernels,
    reason_of,
    untreatable,
)

SHAPES = {1: (4, 2), 2: (4, 4, 2), 3: (4, 4, 4, 2)}  # by the axes of space
ARGUMENTS = {
    "AlphaDropout": (0.5,), "Dropout": (0.5,), "GaussianDropout": (0.5,), "GaussianNoise": (0.5,), "Permute": ((2, 1),),
    "RepeatVector": (3,), "Reshape": ((2, 4),), "SpatialDropout1D": (0.5,), "SpatialDropout2D": (0.5,),
    "SpatialDropout3D": (0.5,),
}  # fmt: skip
OPERATIONS = {
    "ExpandDims": lambda x: ops.expand_dims(x, 1),
    "GetItem": lambda x: x[:, 1:],
    "Squeeze": lambda x: ops.squeeze(x[:, :1], 1),
    "Transpose": lambda x: ops.transpose(x, (0, 2, 1)),
}


def last_call(shape, layer):
    """The last call of a model that gives what a layer or a function makes of an input."""
    x = keras.Input(shape, name="x")
    return calls_of(keras.Model(x, layer(x))).calls[-1]


def values(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.mark.parametrize("name", sorted(PASSING))
def test_what_passes_codes_on_computes_no_new_numbers(name):
    axes = int(name[-2]) if name.endswith("D") else 1
    shape = (4,) if name == "RepeatVector" else SHAPES[axes]
    made = OPERATIONS.get(name) or getattr(layers, name)(*ARGUMENTS.get(name, ()))
    x = values(3, *shape)

    found = np.asarray(made(ops.convert_to_tensor(x)))

    assert last_call(shape, made).computes_as == name
    assert np.isin(found, [0.0, *x.flat]).all()  # 0 is a code of any grid, and what is padded with


@pytest.mark.parametrize("name", sorted(JOINS))
def test_what_is_joined_is_all_of_it_a_number_that_was_there(name):
    one, other = values(2, 3), -values(2, 3)
    found = np.asarray(getattr(layers, name)()([one, other]))
    assert np.isin(found, [one, other]).all()


numbers = st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=8)


@given(numbers, st.sampled_from(sorted(FIXED)))
def test_functions_on_a_grid_of_their_own_stay_on_it(x, name):
    low, high = FIXED[name]
    found = np.asarray(keras.activations.get(name)(ops.convert_to_tensor([x], dtype="float32")))
    # A softmax divides by a sum of rounded numbers: a unit in the last place for each of eight.
    assert low <= found.min() <= found.max() <= high * (1 + 8 * 2.0**-23)


@given(numbers, st.sampled_from(sorted(GATES)))
def test_gates_are_what_the_function_multiplies_with(x, name):
    given_numbers = ops.convert_to_tensor(x, dtype="float32")
    gate = given_numbers
    for function in GATES[name]:
        gate = keras.activations.get(function)(gate)
    wanted = keras.activations.get(name)(given_numbers)
    np.testing.assert_allclose(given_numbers * gate, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(WITHIN_KERNELS | ALONE - {"prelu"} | {*FIXED, *GATES}))
def test_functions_have_the_names_that_keras_gives_them(name):
    function = keras.activations.get(name)
    assert function_of(last_call((4,), layers.Activation(function))) == name
    assert is_within_kernels(function) == (name in WITHIN_KERNELS)


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (layers.ReLU(), "relu"),
        (layers.ReLU(6), "relu6"),
        (layers.ReLU(4), "relu with a threshold or a largest value"),
        (layers.ReLU(threshold=1.0), "relu with a threshold or a largest value"),
        (layers.ReLU(negative_slope=0.1), "leaky_relu"),
        (layers.ReLU(6, negative_slope=0.1), "leaky relu with a largest value"),
        (layers.LeakyReLU(), "leaky_relu"),
        (layers.PReLU(), "prelu"),
        (layers.ELU(), "elu"),
        (layers.Softmax(), "softmax"),
        (layers.Softmax(axis=1), "softmax along another axis"),
        (ops.silu, "silu"),
        (ops.exp, "exponential"),
        (layers.Dense(2, activation="relu"), ""),
        (layers.Flatten(), ""),
    ],
)
def test_layers_and_operations_that_are_functions_are_told_by_what_they_compute(made, name):
    assert function_of(last_call((3, 4), made)) == name


def relu(x):
    return x


def test_a_function_of_your_own_is_not_taken_for_that_of_its_name():
    assert function_of(last_call((4,), layers.Activation(relu))) == "relu of your own"
    assert not is_within_kernels(relu)
    assert is_within_kernels(None)  # none at all


@pytest.mark.parametrize(
    ("shape", "axis", "said"),
    [
        ((4,), -1, True),
        ((4, 3), 2, True),
        ((4, 4, 3), 3, True),
        ((4, 4, 3), 1, False),
        ((4, 4, 4, 3), -1, False),
    ],
)
def test_a_normalization_of_channels_is_one_of_the_last_axis_up_to_images(shape, axis, said):
    call = last_call(shape, layers.BatchNormalization(axis=axis))
    assert is_of_channels(call) == said
    wanted = "what it is given is in float" if said else "only of the last axis of vectors, "
    assert reason_of(call).startswith(wanted)


class Rolled(layers.SimpleRNN):
    """Derived from a layer that has a reason."""


class Own(layers.Layer):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Rolled(3), "recurrent layers stay in float: what rounding does to a state adds up"),
        (layers.RMSNormalization(), "its mean and variance need more than eight bits"),
        (Own(), "there is no integer form of 'Own' here"),
        (layers.UnitNormalization(), "there is no integer form of 'UnitNormalization' here"),
    ],
)
def test_what_has_no_integer_form_has_a_reason(layer, reason):
    assert reason_of(last_call((4, 3), layer)).startswith(reason)


def test_what_keras_quantized_or_adapted_is_left_as_it_is():
    reason = "its kernel is quantized already, or adapted by LoRA"
    plain, adapted, quantized = (layers.Dense(3) for _ in range(3))
    for layer in (plain, adapted, quantized):
        layer.build((None, 4))
    adapted.enable_lora(2)
    quantized.quantize("int8")
    assert [untreatable(layer) for layer in (plain, adapted, quantized)] == [None, reason, reason]
