"""Which zeros XNNPACK and LiteRT can skip is told layer by layer, and why they can't skip others."""

import keras
import numpy as np
import pytest
from keras import layers

from strop.core import registry
from strop.graph.litert_network import read_flatbuffer
from strop.graph.litert_zeros import (
    Part,
    dense_layers,
    in_blocks,
    layers_with_zeros,
    part_for_xnnpack,
    why_not_in_blocks,
)
from strop.graph.quiet import quiet
from tests.passes.convert.conftest import Workshop


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("sparse"))


def convnet(*, size=33, share=0.8, first="valid", middle=None, head=layers.GlobalAveragePooling2D):
    """A network that XNNPACK turns to channels first, but for what is asked for."""
    keras.utils.set_random_seed(3)
    x = image = keras.Input((size, size, 3), name="image")
    if first == "valid":
        x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(8, 3, strides=2, padding=first, activation="relu6", name="first")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="deep")(x)
    x = layers.Conv2D(16, 1, activation="relu", name="wide")(x)
    if middle is not None:
        x = middle(x)
    x = layers.Conv2D(16, 1, name="last")(x)
    model = keras.Model(image, head()(x) if head else x)
    for name in ("wide", "last"):
        without(model.get_layer(name), share)
    return model


def without(layer, share, block=1):
    """Make a share of a layer's weights zero by chance, as many of its inputs at a time as a block has."""
    kernel, *rest = layer.get_weights()
    inputs = kernel.shape[-2]
    drawn = np.random.default_rng(0).random(
        (*kernel.shape[:-2], -(-inputs // block), kernel.shape[-1])
    )
    kept = np.repeat(drawn >= np.quantile(drawn, share), block, axis=-2)[..., :inputs, :]
    layer.set_weights([kernel * kept, *rest])


def converted(workshop, model, batch=1):
    with quiet():
        steps = [
            registry.passes.get("convert.graph_def")(),
            registry.passes.get("convert.litert")(batch=batch),
        ]
        return workshop.apply(workshop.keras(model), *steps)


def part_of(workshop, model):
    flatbuffer = read_flatbuffer(converted(workshop, model).path)
    return part_for_xnnpack(flatbuffer, layers_with_zeros(flatbuffer, 0.3))


def test_a_network_from_a_strided_convolution_to_a_mean_is_a_part(workshop):
    found = part_of(workshop, convnet())
    assert isinstance(found, Part)
    assert [round(layer.zeros, 1) for layer in found.layers] == [0.8, 0.8]
    assert not found.ends


def test_the_padding_of_an_odd_size_is_to_be_spelled_out(workshop):
    found = part_of(workshop, convnet(first="same"))
    assert isinstance(found, Part)
    assert len(found.unspelled) == 1


@pytest.mark.parametrize("head", [lambda: layers.GlobalAveragePooling2D(keepdims=True)])
def test_a_mean_that_keeps_its_dimensions_is_to_end_the_part(workshop, head):
    found = part_of(workshop, convnet(head=head))
    assert isinstance(found, Part)
    assert len(found.ends) == 1


def gated(x):
    """Channels weighed by what their means say: a mean that is no end."""
    means = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return layers.Multiply()([x, layers.Conv2D(16, 1, activation="sigmoid", name="gate")(means)])


def test_a_mean_that_weighs_channels_is_within_the_part(workshop):
    model = convnet(middle=gated)
    without(model.get_layer("gate"), 0.8)
    found = part_of(workshop, model)
    assert isinstance(found, Part)
    assert len(found.layers) == 3


def scaled_mean(x):
    """A mean of what a constant was multiplied with; behind or before a convolution the converter folds that away."""
    scaled = layers.Rescaling(2.0, 0.5)(layers.Activation("tanh")(x))
    return layers.GlobalAveragePooling2D()(scaled)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"first": "same", "size": 32}, "pads by 0 and 1 (down) and 0 and 1 (across), and not by 1 on each side"),
        ({"middle": layers.MaxPooling2D(2)}, "(MAX_POOL_2D) has no kernel for channels that come first"),
        ({"middle": layers.Conv2D(16, 3)}, "(CONV_2D) is of 3x3, and not of 1x1"),
        ({"middle": layers.Conv2D(16, 1, strides=2)}, "(CONV_2D) of 1x1 has a stride"),
        ({"head": lambda: scaled_mean}, "(MUL) has a constant in it"),
        ({"middle": layers.DepthwiseConv2D(3, strides=2)}, "pads by 0 and 0 (down)"),
        ({"middle": layers.DepthwiseConv2D(7, padding="same")}, "is of 7x7, and not of 3x3 or 5x5"),
        ({"head": None}, "is an output, and no mean over space"),
        ({"head": layers.GlobalMaxPooling2D}, "(REDUCE_MAX) has no kernel for channels that come first"),
        ({"share": 0.6}, "60% of the weights of its convolutions of 1x1 are zero, and XNNPACK wants more than 2/3"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)  # fmt: skip
def test_what_keeps_xnnpack_to_dense_kernels_is_named(workshop, changed, reason):
    found = part_of(workshop, convnet(**changed))
    assert isinstance(found, str)
    assert reason in found


def dense(inputs, *, share=0.8, block=4, rows=None):
    keras.utils.set_random_seed(4)
    shape = (inputs,) if rows is None else (rows, inputs)
    model = keras.Sequential(
        [keras.Input(shape, name="x"), layers.Dense(32, activation="relu", name="fc")]
    )
    without(model.get_layer("fc"), share, block)
    return model


@pytest.mark.parametrize(
    ("model", "batch", "reason"),
    [
        (lambda: dense(64), 1, ""),
        (lambda: dense(64, block=1), 1, "has zeros that don't come in blocks of 4 inputs"),
        (lambda: dense(66), 1, "has 66 inputs, which make no whole blocks of 4"),
        (lambda: dense(64), 8, "is given 8 rows at a time, and the kernel is slow with more than one"),
        (lambda: dense(64), 0, "is given a number of rows at a time that is left open"),
    ],
    ids=["blocks", "single", "rest", "rows", "open"],
)  # fmt: skip
def test_the_kernel_for_dense_layers_is_for_whole_blocks_and_one_row(
    workshop, model, batch, reason
):
    flatbuffer = read_flatbuffer(converted(workshop, model(), batch).path)
    (layer,) = dense_layers(flatbuffer, layers_with_zeros(flatbuffer, 0.3))
    assert why_not_in_blocks(flatbuffer, layer) == reason


def test_blocks_are_counted_along_rows():
    weights = np.ones((3, 8), np.float32)
    weights[0] = 0
    weights[1, 1:8] = 0
    assert in_blocks(weights) == 3 * 4 / 24
