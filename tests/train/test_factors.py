"""What a layer becomes at some ranks, and why others become nothing: dimensions, costs, kernels, owners."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops

from strop.graph.quiet import quiet
from strop.train.factorization import factorize
from strop.train.factors import KINDS, ways
from strop.train.kernels import kernels_of
from strop.train.rebuilding import copied

# Sums of some hundred products in single precision.
ROUNDING = 200 * 2.0**-24


@pytest.fixture(autouse=True)
def _silence():
    keras.utils.set_random_seed(0)
    with quiet():
        yield


def one(layer, shape, **given):
    return keras.Sequential([keras.Input(shape, name="x", **given), layer])


def ways_of(model, kind="tucker", margin=0.0):
    kernels, _ = kernels_of(model)
    return ways(kernels, copied(model).uses, kind, margin)


def drawn(shape):
    return np.random.default_rng(5).normal(size=shape).astype("float32")


CONVOLUTIONS = [
    (layers.Conv1D, (14, 9), {"padding": "causal", "dilation_rate": 2}),
    (layers.Conv1D, (14, 9), {"padding": "same", "strides": 2, "activation": "relu"}),
    (layers.Conv2D, (9, 8, 9), {"padding": "valid", "strides": (2, 1), "use_bias": False}),
    (layers.Conv3D, (7, 6, 8, 9), {"padding": "same", "strides": (1, 2, 1)}),
    (layers.Conv3D, (7, 6, 8, 9), {"padding": "valid", "dilation_rate": (1, 2, 1)}),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("convolution", "shape", "settings"), CONVOLUTIONS)
def test_convolutions_of_all_dimensions_answer_as_before_at_full_rank(
    kind, convolution, shape, settings
):
    model = one(convolution(12, 3, name="conv", **settings), shape)
    way = ways_of(model, kind)[0]["conv"]
    full = way.kept.shape
    x = drawn((2, *shape))
    row = way.row(full, (f"factor{number}" for number in itertools.count(1)))
    made = keras.Sequential([keras.Input(shape), *(part.layer for part in row)])
    for part in row:
        part.layer.set_weights(part.weights)
    assert len(row) == (1 if kind == "tucker" else 2)
    np.testing.assert_allclose(made(x), model(x), rtol=0, atol=ROUNDING * np.abs(model(x)).max())
    np.testing.assert_allclose(way.approximated(full), model.layers[0].kernel, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("convolution", "shape", "settings"), CONVOLUTIONS)
def test_a_row_answers_as_the_layer_with_the_kernel_that_it_approximates(
    kind, convolution, shape, settings
):
    model = one(convolution(12, 3, name="conv", **settings), shape)
    way = ways_of(model, kind)[0]["conv"]
    ranks = tuple(max(size // 2, 1) for size in way.kept.shape)
    x = drawn((2, *shape))

    row = way.row(ranks, (f"factor{number}" for number in itertools.count(1)))
    made = keras.Sequential([keras.Input(shape), *(part.layer for part in row)])
    for part in row:
        part.layer.set_weights(part.weights)
    model.layers[0].kernel.assign(way.approximated(ranks))

    np.testing.assert_allclose(made(x), model(x), rtol=0, atol=ROUNDING * np.abs(model(x)).max())
    assert sum(part.weights[0].size for part in row) == way.factors(ranks).weights[1]


def test_costs_are_those_of_all_places_in_one_two_and_three_dimensions():
    def costs(layer, shape, kind, ranks):
        return ways_of(one(layer, shape), kind)[0]["conv"].factors(ranks).macs

    conv1 = layers.Conv1D(8, 5, strides=2, padding="same", name="conv")
    assert costs(conv1, (20, 6), "tucker", (2, 3)) == (
        10 * 5 * 6 * 8, 20 * 6 * 2 + 10 * (5 * 2 * 3 + 3 * 8),
    )  # fmt: skip
    assert costs(conv1, (20, 6), "spatial", (2,)) == (10 * 5 * 6 * 8, 10 * 2 * (5 * 6 + 8))
    conv3 = layers.Conv3D(8, (3, 2, 2), strides=(1, 2, 1), padding="same", name="conv")
    assert costs(conv3, (4, 6, 5, 7), "spatial", (3,)) == (
        4 * 3 * 5 * 12 * 7 * 8, 4 * 6 * 5 * 3 * 7 * 3 + 4 * 3 * 5 * 3 * 4 * 8,
    )  # fmt: skip


def test_layers_that_share_a_kernel_are_left_alone():
    first, second = layers.Dense(24, name="first"), layers.Dense(24, name="second")
    first.build((None, 24))
    second._kernel, second.bias = first._kernel, first.bias
    second.built = True
    x = keras.Input((24,))
    model = keras.Model(x, layers.Dense(24, name="alone")(second(first(x))))

    found = factorize(model, 0.4)

    assert list(found.layers) == ["alone"]
    assert found.left_alone == {
        "first": "its kernel is that of the layer 'second' too, which factors would part"
    }


def test_what_the_model_does_not_call_is_left_alone():
    x = keras.Input((24,), name="x")
    model = keras.Model(x, layers.Dense(24, name="called")(x))
    model.beside = layers.Dense(24, name="beside")
    model.beside.build((None, 24))

    found = factorize(model, 0.4)

    assert list(found.layers) == ["called"]
    assert found.left_alone == {"beside": "the model does not call it"}


def test_layers_within_others_are_told_by_whose_code_calls_them():
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(40, 16, name="table")(tokens)
    x = layers.MultiHeadAttention(2, 8, name="attention")(x, x)
    x = layers.Bidirectional(layers.GRU(8, return_sequences=True, name="gru"), name="both")(x)
    x = layers.EinsumDense("abc,cd->abd", output_shape=(None, 16), name="einsum")(x)
    x = layers.Conv1D(16, 3, groups=2, name="grouped")(x)
    x = layers.SeparableConv1D(16, 3, name="separable")(x)
    x = layers.Conv1DTranspose(16, 3, name="transposed")(x)
    found = factorize(keras.Model(tokens, x), 0.5)

    assert list(found.layers) == ["table"]
    within = "code of the layer '{}' calls it, where no others can be put"
    unknown = "no factors of its class '{}' are known"
    assert found.left_alone == {
        "attention/query": within.format("attention"),
        "attention/key": within.format("attention"),
        "attention/value": within.format("attention"),
        "attention/attention_output": within.format("attention"),
        "both/forward_gru/gru_cell": within.format("both"),
        "both/backward_gru/gru_cell": within.format("both"),
        "einsum": unknown.format("EinsumDense"),
        "grouped": "its channels are in 2 groups",
        "separable": unknown.format("SeparableConv1D"),
        "transposed": unknown.format("Conv1DTranspose"),
    }


def test_a_kernel_without_weights_is_left_alone():
    left, right = keras.Input((0,)), keras.Input((24,))
    x = layers.Dense(24, name="empty")(left) + layers.Dense(24, name="full")(right)
    found = factorize(keras.Model([left, right], x), 0.4)
    assert list(found.layers) == ["full"]
    assert found.left_alone == {"empty": "its kernel has no weights"}


def test_initial_values_of_a_size_of_their_own_are_no_hindrance():
    table = np.random.default_rng(0).normal(size=(40, 24)).astype("float32")
    tokens = keras.Input((5,), dtype="int32")
    given = keras.initializers.Constant
    x = layers.Embedding(40, 24, embeddings_initializer=given(table), name="table")(tokens)
    model = keras.Model(
        tokens, layers.Dense(24, kernel_initializer=given(table[:24]), name="d")(x)
    )
    found = factorize(model, 0.4)
    assert set(found.layers) == {"table", "d"}
    assert found.model(np.zeros((2, 5), "int32")).shape == (2, 5, 24)


def test_functions_and_regularizers_of_ones_own_come_along():
    class Squared(keras.regularizers.Regularizer):
        def __call__(self, weights):
            return ops.sum(ops.square(weights))

        def get_config(self):
            return {}

    model = keras.Sequential(
        [
            keras.Input((24,)),
            layers.Dense(24, activation=lambda x: ops.relu(x) + 0.1 * x, name="curved"),
            layers.Dense(24, kernel_regularizer=Squared(), activation=leaky, name="held"),
        ]
    )
    found = factorize(model, 1.0, margin=0.0)
    assert found.layers == {}
    x = drawn((3, 24))
    np.testing.assert_allclose(found.model(x), model(x), atol=1e-5)
    small = factorize(model, 0.4).model
    assert small.get_layer("held").activation is leaky
    assert len(small.losses) == 2  # of both factors of 'held'


def leaky(x):
    return ops.maximum(x, 0.1 * x)
