"""The kernels of all kinds of layers are found, each once, with the axes that are summed over."""

import keras
import pytest
from keras import layers

from strop.train.kernels import declared_kernels, kernels_of, sparsity_of
from tests.models import bidirectional_lstm, nested, subclassed, transformer


def found_in(model, **given):
    kernels, left = kernels_of(model, **given)
    return {f"{k.layer}.{k.variable.name}": k.summed for k in kernels}, left


def of(*given):
    """A model of these layers, one after the other."""
    return keras.Sequential(list(given))


@pytest.mark.parametrize(
    ("shape", "layer", "summed"),
    [
        ((6,), layers.Dense(3), {"kernel": (0,)}),
        ((5, 6), layers.EinsumDense("abc,cde->abde", (None, 2, 3)), {"kernel": (0,)}),
        ((5, 2, 3), layers.EinsumDense("...cd,cde->...e", 4), {"kernel": (0, 1)}),
        ((9, 3), layers.Conv1D(4, 3), {"kernel": (0, 1)}),
        ((9, 9, 4), layers.Conv2D(4, 3, groups=2), {"kernel": (0, 1, 2)}),
        ((5, 5, 5, 3), layers.Conv3D(4, 3), {"kernel": (0, 1, 2, 3)}),
        ((9, 3), layers.Conv1DTranspose(4, 3), {"kernel": (0, 2)}),
        ((9, 9, 3), layers.Conv2DTranspose(4, 3), {"kernel": (0, 1, 3)}),
        ((9, 3), layers.DepthwiseConv1D(3), {"kernel": (0,)}),
        ((9, 9, 3), layers.DepthwiseConv2D(3), {"kernel": (0, 1)}),
        ((9, 9, 3), layers.SeparableConv2D(4, 3), {"depthwise_kernel": (0, 1), "pointwise_kernel": (0, 1, 2)}),
        ((7,), layers.Embedding(10, 4), {"embeddings": ()}),
        ((7,), layers.ReversibleEmbedding(10, 4, tie_weights=False), {"embeddings": (), "reverse_embeddings": (0,)}),
    ],
)  # fmt: skip
def test_kernels_are_found_with_the_axes_that_a_layer_sums_over(shape, layer, summed):
    found, left = found_in(of(keras.Input(shape), layer))
    assert found == {f"{layer.name}.{name}": axes for name, axes in summed.items()}
    assert left == {}


def test_a_transposed_convolution_sums_over_the_axis_of_its_inputs():
    layer = layers.Conv2DTranspose(4, 3)
    kernels, _ = kernels_of(of(keras.Input((9, 9, 6)), layer))
    assert kernels[0].variable.shape[kernels[0].group_axis] == 6


@pytest.mark.parametrize("cell", [layers.SimpleRNN, layers.GRU, layers.LSTM])
def test_recurrent_layers_have_two_kernels(cell):
    found, _ = found_in(of(keras.Input((5, 3)), cell(4, name="rnn")))
    assert list(found.values()) == [(0,), (0,)]
    assert all(name.startswith("rnn/") for name in found)


def test_layers_in_wrappers_and_models_are_found_each_variable_once():
    lstm, _ = found_in(bidirectional_lstm())
    assert len(lstm) == 1 + 2 * 2 + 2 + 1  # embedding, both directions, another LSTM, dense
    shared, _ = found_in(nested())
    assert len(shared) == 2
    attention, left = found_in(transformer())
    assert len(attention) == 1 + 2 * (4 + 2) + 1
    assert left == {}
    timed, _ = found_in(of(keras.Input((5, 3)), layers.TimeDistributed(layers.Dense(2, name="in"), name="out")))  # fmt: skip
    assert list(timed) == ["out/in.kernel"]
    own, _ = found_in(subclassed())
    assert len(own) == 2


def test_what_is_not_pruned_is_listed_with_the_reason():
    class Own(layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(shape[-1], 3), name="table")
            self.offset = self.add_weight(shape=(3,), name="offset")

        def call(self, x):
            return x @ self.table + self.offset

    model = of(
        keras.Input((4,)),
        layers.Dense(4, trainable=False, name="frozen"),
        layers.BatchNormalization(name="norm"),
        Own(name="own"),
        layers.Dense(4, name="adapted"),
        layers.Dense(2, name="last"),
    )
    model.get_layer("adapted").enable_lora(2)

    found, left = found_in(model)

    assert list(found) == ["last.kernel"]
    assert left == {
        "frozen": "it is frozen (trainable=False)",
        "own": "no kernels of its class 'Own' are known (a method 'get_prunable_weights' would name them)",
        "adapted": "its kernel is quantized, or adapted by LoRA",
    }


def test_a_class_of_ones_own_may_say_what_can_be_pruned():
    class Own(layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(shape[-1], 3), name="table")

        def call(self, x):
            return x @ self.table

        def get_prunable_weights(self):
            return [self.table]

    assert found_in(of(keras.Input((4,)), Own(name="own"))) == ({"own.table": (0,)}, {})


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (layers.Conv2DTranspose(4, 3), {"kernel": (-2,)}),
        (layers.DepthwiseConv2D(3), {"kernel": (-2, -1)}),
        (layers.EinsumDense("abcd,cde->abe", (None, 4)), {"kernel": (-1,)}),
        (layers.Embedding(8, 4), {"embeddings": (-1,)}),
        (layers.BatchNormalization(), {}),
    ],
)
def test_a_layer_not_built_yet_says_where_its_kernels_will_be(layer, channels):
    assert declared_kernels(layer) == channels


def test_a_kernel_without_weights_is_left_alone():
    model = keras.Sequential(
        [keras.Input((0,)), layers.Dense(4, name="empty"), layers.Dense(4, name="full")]
    )
    found, left = kernels_of(model)
    assert [kernel.layer for kernel in found] == ["full"]
    assert left == {"empty": "its kernel has no weights"}
    assert sparsity_of(model).keys() == {"full"}
