"""Layers that stand for others compute what these do, with other weights of the same values."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from strop.train.equivalents import (
    depthwise_and_pointwise,
    identity_on,
    mean_of_all,
    with_activation,
)

ROUNDING = 1e-5  # of float32, in sums of some tens of numbers about one


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def answers(layers_in_a_row, x):
    for layer in layers_in_a_row:
        x = layer(x)
    return np.asarray(x)


@pytest.mark.parametrize(
    ("pooling", "shape"),
    [
        (layers.AveragePooling1D(6), (6, 3)),
        (layers.AveragePooling2D((4, 5), padding="same"), (4, 5, 3)),
        (layers.AveragePooling2D(4, strides=1), (4, 4, 3)),
        (layers.AveragePooling3D((2, 3, 4)), (2, 3, 4, 5)),
    ],
)
def test_means_of_all_of_an_image_are_those_of_the_pooling_layer(pooling, shape):
    found, x = mean_of_all(pooling, (None, *shape)), drawn(2, *shape)
    assert found.name == pooling.name
    np.testing.assert_allclose(answers([found], x), answers([pooling], x), atol=ROUNDING)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.AveragePooling2D(2), (None, 4, 4, 3)),
        (layers.AveragePooling2D(4), (None, None, 4, 3)),
        (layers.AveragePooling2D(4, strides=1, padding="same"), (None, 4, 4, 3)),
        (layers.AveragePooling2D(4, data_format="channels_first"), (None, 3, 4, 4)),
        (layers.UpSampling2D(4), (None, 4, 4, 3)),
    ],
    ids=["neighbours", "free", "a mean at each place", "channels first", "no pooling"],
)
def test_what_gives_other_means_has_no_layer_for_those_of_all(layer, shape):
    assert mean_of_all(layer, shape) is None


@pytest.mark.parametrize("shape", [(5, 3), (4, 6, 3)])
def test_an_identity_changes_nothing_for_good(shape):
    made, x = identity_on((None, *shape), "same"), drawn(2, *shape)
    np.testing.assert_array_equal(answers([made], x), x)
    assert not made.trainable_weights
    assert made.kernel.shape[-2:] == (3, 1)  # one weight a channel


@pytest.mark.parametrize(
    "layer", [layers.Dense(4, activation="softmax"), layers.Conv1D(4, 2, activation="softmax")]
)
def test_another_function_on_the_same_values_leaves_the_layer_as_it_was(layer):
    x = drawn(2, 5, 3)
    before = answers([layer], x)

    made = with_activation(layer, keras.activations.linear)

    np.testing.assert_allclose(
        np.asarray(keras.activations.softmax(made(x))), before, atol=ROUNDING
    )
    made.kernel.assign(0 * made.kernel)
    np.testing.assert_array_equal(answers([layer], x), before)


@settings(max_examples=25)
@given(
    st.sampled_from([1, 2]),
    st.integers(1, 3),
    st.sampled_from([(1, 1), (2, 1), (1, 2)]),
    st.fixed_dictionaries(
        {
            "filters": st.integers(1, 4),
            "kernel_size": st.integers(1, 3),
            "padding": st.sampled_from(["valid", "same"]),
            "depth_multiplier": st.integers(1, 2),
            "use_bias": st.booleans(),
            "activation": st.sampled_from([None, "relu", "tanh"]),
            "trainable": st.booleans(),
        }
    ),
)
def test_a_separable_convolution_is_two(dimensions, channels, steps, config):
    strides, dilation = steps
    layer = getattr(layers, f"SeparableConv{dimensions}D")(
        **config, strides=strides, dilation_rate=dilation, bias_initializer="normal", name="both"
    )
    x = drawn(2, *[7] * dimensions, channels)
    wanted = answers([layer], x)

    depthwise, pointwise = depthwise_and_pointwise(layer)

    np.testing.assert_allclose(answers([depthwise, pointwise], x), wanted, atol=ROUNDING)
    assert (depthwise.name, pointwise.name) == ("both_depthwise", "both")
    assert depthwise.trainable == pointwise.trainable == layer.trainable
    assert pointwise.kernel is not layer.pointwise_kernel
