"""Models of fewer channels: their weights are those of the channels that stay, whatever layers make and read them."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from strop.graph.keras_calls import calls_of
from strop.train.coupling import coupling_of
from strop.train.narrowing import narrowed, sizes_of_kernels
from tests import models

# Which weight of a layer meets the channels that it is given, and on which axis. What takes each channel by itself is
# not among them.
READ_BY = {
    "Dense": ("kernel", -2), "Conv1D": ("kernel", -2), "Conv2D": ("kernel", -2), "Conv2DTranspose": ("kernel", -1),
    "SeparableConv2D": ("depthwise_kernel", -2), "LSTM": ("kernel", 0), "GRU": ("kernel", 0),
}  # fmt: skip


def narrower(model, is_kept, *, separable=()):
    """Return a model with the channels that stay, and where they were, by the layers' names.

    Args:
        model: The model.
        is_kept: Says of a unit of channels that need not stay whether it does.
        separable: The layers to separate, by their names.
    """
    calls = calls_of(model)
    coupling = coupling_of(calls, {})
    units = [unit in coupling.fixed or is_kept(unit) for unit in range(len(coupling.families))]
    for unit, family in enumerate(coupling.families):
        alike = np.flatnonzero(coupling.families == family)
        units[unit] |= unit == alike[0]  # of each family there is one at least
    stays = np.asarray(units)[coupling.units]
    apart = {id(c.operation): c.name for c in calls.calls if c.name in separable}
    student = narrowed(model, calls, coupling, stays, separable=apart)
    read = {
        c.name: stays[coupling.read[id(c.operation)]] for c in calls.calls if c.kind in READ_BY
    }
    return student, read


def deafened(model, read):
    """Have the layers of a model ignore the channels that don't stay, which may hold anything then."""
    for layer in model.layers:
        name, axis = READ_BY.get(type(layer).__name__, ("", 0))
        if name:
            weight = getattr(getattr(layer, "cell", layer), name)
            array = np.moveaxis(np.array(weight), axis, -1)
            weight.assign(np.moveaxis(array * read[layer.name], -1, axis))


def image_net():
    """Each kind of layer for images that makes channels or takes each by itself."""
    x = image = keras.Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.PReLU(shared_axes=(1, 2), name="prelu")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    y = layers.SeparableConv2D(5, 2, depth_multiplier=2, name="separable")(x)
    x = layers.Concatenate(name="both")([y, layers.Cropping2D(((1, 0), (0, 1)))(x)])
    x = layers.Conv2DTranspose(4, 2, activation="relu", name="turned")(x)
    x = layers.Add(name="sum")([x, layers.Conv2D(4, 1, name="beside")(x)])
    x = layers.Dense(6, activation="gelu", name="hidden")(layers.Flatten(name="flat")(x))
    return models.settle(keras.Model(image, layers.Dense(3, name="y")(x)))


def word_net():
    """The same of layers for sequences."""
    words = keras.Input((7,), dtype="int32", name="words")
    x = layers.Embedding(20, 5, name="table")(words)
    x = layers.Conv1D(4, 3, activation="relu", name="conv")(x)
    x = layers.LSTM(3, return_sequences=True, name="gates")(x)
    x = layers.GRU(3, name="more")(layers.Dense(5, name="between")(x))
    return models.settle(keras.Model(words, layers.Dense(2, name="y")(x)))


@pytest.mark.parametrize("make", [image_net, word_net])
@settings(max_examples=4)
@given(st.floats(0.2, 0.9), st.integers(0, 99))
def test_a_student_answers_as_a_model_that_ignores_the_channels_that_are_gone(make, share, seed):
    model, is_kept = make(), np.random.default_rng(seed).random(100) < share
    student, read = narrower(model, is_kept.__getitem__)
    deafened(model, read)
    shape = (3, *model.inputs[0].shape[1:])
    x = np.random.default_rng(0).uniform(0, 20, shape).astype(model.inputs[0].dtype)
    wanted = np.asarray(model(x))
    np.testing.assert_allclose(student(x), wanted, atol=1e-5 * np.abs(wanted).max())


def test_a_separable_convolution_has_the_channels_that_stay():
    model = image_net()
    student, _ = narrower(model, lambda unit: unit % 2, separable=("beside",))
    assert isinstance(student.get_layer("beside"), layers.SeparableConv2D)
    (kernel,) = (layer.kernel for layer in model.layers if layer.name == "beside")
    both = student.get_layer("beside")
    assert np.prod(both.depthwise_kernel.shape) < kernel.shape[-2]
    assert both.pointwise_kernel.shape[-2] == both.depthwise_kernel.shape[-2]


@pytest.mark.parametrize(
    ("shape", "layer", "weight", "axis", "count"),
    [
        ((4,), layers.Dense(3), "kernel", -1, 4),
        ((5, 5, 4), layers.Conv2D(3, 2), "kernel", -1, 16),
        ((5, 5, 4), layers.Conv2DTranspose(3, 2), "kernel", -2, 16),
        ((5, 5, 4), layers.SeparableConv2D(3, 2, depth_multiplier=2), "pointwise_kernel", -1, 8),
        ((4,), layers.Embedding(7, 3), "embeddings", -1, 7),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else "",
)
def test_the_size_of_a_channel_is_the_sum_of_what_makes_it(shape, layer, weight, axis, count):
    x = keras.Input(shape, name="x")
    (call,) = calls_of(keras.Model(x, layer(x))).calls
    array = np.moveaxis(np.zeros(getattr(layer, weight).shape), axis, -1)
    array[...] = [1.0, -2.0, 3.0]  # by the channel that it makes
    getattr(layer, weight).assign(np.moveaxis(array, -1, axis))
    if layer.__class__ is not layers.Embedding:
        layer.bias.assign([9.0] * 3)
    assert sizes_of_kernels(call).tolist() == [count, 2 * count, 3 * count]


def test_layers_of_models_within_have_names_of_their_own():
    def within(name):
        return keras.Sequential(
            [keras.Input((4,)), layers.Dense(4, name="dense"), layers.Dense(4, name="last")],
            name=name,
        )

    x = keras.Input((4,), name="x")
    y = layers.Dense(4, name="last")(within("body")(within("stem")(x)))
    student, _ = narrower(keras.Model(x, y), lambda unit: True)
    assert [layer.name for layer in student.layers] == [
        "x", "dense", "stem_last", "body_dense", "body_last", "last",
    ]  # fmt: skip


def test_a_part_that_was_called_as_if_frozen_is_taught_again():
    body = keras.Sequential([keras.Input((8,)), layers.Dropout(0.5, seed=0)], name="body")
    x = keras.Input((8,), name="x")
    y = layers.Dense(2, name="y")(body(x, training=False))
    student, _ = narrower(keras.Model(x, y), lambda unit: True)
    given_ones = np.ones((4, 8), "float32")
    assert np.any(
        np.asarray(student(given_ones, training=True)) != np.asarray(student(given_ones))
    )


def test_a_layer_that_stays_as_it_is_brings_along_what_it_learnt_of_data():
    normalization = layers.Normalization(name="seen")
    normalization.adapt(np.random.default_rng(0).normal(5, 2, (50, 4)))
    x = keras.Input((4,), name="x")
    hidden = layers.Dense(6, activation="relu", name="hidden")(normalization(x))
    model = keras.Model(x, layers.Dense(2, name="y")(hidden))
    student, read = narrower(model, lambda unit: unit % 2)
    deafened(model, read)
    given_numbers = np.random.default_rng(1).normal(5, 2, (3, 4)).astype("float32")
    np.testing.assert_allclose(student(given_numbers), model(given_numbers), atol=1e-5)
