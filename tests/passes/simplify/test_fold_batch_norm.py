"""Batch normalization in each of its spellings goes into the layer beside it."""

import copy

import numpy as np
import pytest
import tensorflow as tf

from strop.graph.quiet import quiet
from strop.graph.simplifying import Ends, leave_out_unneeded
from strop.graph.view import GraphView
from strop.passes.simplify.fold_batch_norm import fold
from tests.graphs import INPUT, run

RANDOM = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


def constant(*shape, low=-1.0, high=1.0):
    return tf.constant(RANDOM.uniform(low, high, shape).astype("float32"))


def graph_of(function, shape=(2, 6, 5, 3)):
    """The GraphDef of a function of a placeholder; its last tensor is called ``y``."""
    with tf.Graph().as_default() as graph:
        tf.identity(function(tf.compat.v1.placeholder(tf.float32, shape, INPUT)), "y")
    return graph.as_graph_def()


def folded(definition, outputs=("y:0",)):
    ends = Ends([f"{INPUT}:0"], list(outputs))
    after = copy.deepcopy(definition)
    changed = fold(after, ends)
    leave_out_unneeded(after, ends)
    return after, changed


def operations(definition):
    return sorted(
        n.op for n in definition.node if n.op not in ("Const", "Identity", "Placeholder")
    )


def agree(before, after, shape=(2, 6, 5, 3), outputs=("y:0",)):
    x = np.random.default_rng(1).uniform(-1, 1, shape).astype("float32")
    for one, other in zip(run(before, outputs, x), run(after, outputs, x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def conv(x, kernel=None, channels=4, size=3, **settings):
    if kernel is None:
        kernel = constant(size, size, int(x.shape[-1]), channels)
    return tf.raw_ops.Conv2D(
        input=x, filter=kernel, **{"strides": [1, 1, 1, 1], "padding": "SAME", **settings}
    )


def norm(x, version="FusedBatchNormV3", **settings):
    size = int(x.shape[-1])
    return getattr(tf.raw_ops, version)(
        x=x, scale=constant(size), offset=constant(size), mean=constant(size),
        variance=constant(size, low=0.1, high=2.0), **{"is_training": False, **settings},
    ).y  # fmt: skip


def written_norm(x):
    size = int(x.shape[-1])
    step = constant(size) * tf.math.rsqrt(constant(size, low=0.1, high=2.0) + 1e-3)
    return x * step + (constant(size) - constant(size) * step)


def depthwise(x):
    kernel = constant(3, 3, int(x.shape[-1]), 2)
    return tf.raw_ops.DepthwiseConv2dNative(
        input=x, filter=kernel, strides=[1, 1, 1, 1], padding="SAME"
    )


def transposed(x):
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=[2, 12, 10, 4], filter=constant(3, 3, 4, 3), out_backprop=x,
        strides=[1, 2, 2, 1], padding="SAME",
    )  # fmt: skip


LAYERS = {"Conv2D": conv, "DepthwiseConv2dNative": depthwise, "Conv2DBackpropInput": transposed}
NORMS = {
    "V1": lambda x: norm(x, "FusedBatchNorm"),
    "V2": lambda x: norm(x, "FusedBatchNormV2"),
    "V3": norm,
    "written out": written_norm,
    "difference first": lambda x: (x - constant(int(x.shape[-1]))) / constant(1, low=0.5) + 0.25,
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("spelling", NORMS)
def test_each_spelling_goes_into_each_layer(layer, spelling):
    before = graph_of(lambda x: NORMS[spelling](LAYERS[layer](x)))
    after, changed = folded(before)
    assert changed
    assert operations(after) == sorted([layer, "BiasAdd"])
    agree(before, after)


def test_a_normalization_of_volumes_and_of_vectors_too():
    def volumes(x):
        kernel = constant(2, 2, 2, 3, 4)
        given = tf.reshape(x, [2, 2, 3, 5, 3])
        return written_norm(
            tf.raw_ops.Conv3D(input=given, filter=kernel, strides=[1] * 5, padding="SAME")
        )

    def vectors(x):
        flat = tf.reshape(x, [2, 90])
        return written_norm(tf.matmul(flat, constant(4, 90), transpose_b=True))

    for made, layer in ((volumes, "Conv3D"), (vectors, "MatMul")):
        before = graph_of(made)
        after, _ = folded(before)
        assert operations(after) == sorted([layer, "BiasAdd", "Reshape"])
        agree(before, after)


def test_biases_and_what_hands_on_are_no_obstacle():
    before = graph_of(lambda x: norm(tf.identity(tf.nn.bias_add(conv(x), constant(4)))))
    after, _ = folded(before)
    assert operations(after) == ["BiasAdd", "Conv2D"]
    agree(before, after)


def test_a_scale_goes_through_a_padding_and_the_rest_stays_behind_it():
    before = graph_of(lambda x: norm(tf.pad(conv(x), [[0, 0], [1, 2], [0, 1], [0, 0]])))
    after, _ = folded(before)
    assert operations(after) == ["BiasAdd", "Conv2D", "Pad"]
    agree(before, after)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_before_a_layer_it_goes_in_where_no_padding_would_tell(padding):
    def made(x):
        return tf.nn.relu(conv(norm(tf.nn.relu(x)), padding=padding))

    before = graph_of(made)
    after, changed = folded(before)
    assert changed == (padding == "VALID")
    if changed:
        assert operations(after) == ["BiasAdd", "Conv2D", "Relu", "Relu"]
    agree(before, after)


def test_the_oldest_spelling_goes_in_too():
    definition = graph_of(conv)
    view = GraphView(definition)
    (y,) = (node for node in definition.node if node.name == "y")
    numbers = [
        view.add_constant(name, RANDOM.uniform(0.5, 2, 4).astype("float32"))
        for name in ("mean", "variance", "beta", "gamma")
    ]
    old = view.add("norm", "BatchNormWithGlobalNormalization", [y.input[0], *numbers], T=1)
    node = view.node(old)
    node.attr["variance_epsilon"].f, node.attr["scale_after_normalization"].b = 1e-3, True
    y.input[0] = old
    definition.versions.producer = 8  # the last that has it

    after, changed = folded(definition)

    assert changed
    assert operations(after) == ["BiasAdd", "Conv2D"]
    agree(definition, after)


def test_of_the_preparation_of_an_image_the_scale_goes_in_where_the_layer_pads():
    before = graph_of(lambda x: conv(tf.nn.relu((x - 0.5) * (1 / 127.5))))
    _, changed = folded(before)
    assert not changed

    before = graph_of(lambda x: conv((tf.nn.relu(x) - 0.5) * (1 / 127.5)))
    after, changed = folded(before)
    assert changed
    assert operations(after) == ["Conv2D", "Relu", "Sub"]
    agree(before, after)


def test_groups_take_each_their_own_channels():
    def made(x):
        wide = tf.nn.relu(tf.concat([x, x], -1))
        return norm(conv(norm(wide), kernel=constant(1, 1, 3, 4), padding="VALID"))

    before = graph_of(made)
    after, _ = folded(before)
    assert operations(after) == ["BiasAdd", "ConcatV2", "Conv2D", "Relu"]
    agree(before, after)


def test_a_shared_kernel_is_copied_and_the_other_layer_keeps_its_own():
    def made(x):
        kernel = constant(3, 3, 3, 4)
        return tf.nn.relu(norm(conv(x, kernel))) + conv(tf.nn.relu(x), kernel)

    before = graph_of(made)
    after, changed = folded(before)
    assert changed
    assert "FusedBatchNormV3" not in operations(after)
    agree(before, after)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda x: norm(conv(x), is_training=True), id="in training"),
        pytest.param(lambda x: (lambda y: norm(y) + tf.nn.relu(y))(conv(x)), id="read by others"),
        pytest.param(lambda x: tf.nn.relu(conv(x)) * constant(4), id="behind a function"),
        pytest.param(lambda x: conv(x) * constant(6, 5, 1), id="a number a place"),
        pytest.param(lambda x: conv(x, channels=1) * constant(4), id="more channels"),
        pytest.param(lambda x: constant(4) / conv(x), id="a quotient by it"),
        pytest.param(conv, id="nothing there"),
    ],
)  # fmt: skip
def test_what_is_no_map_of_its_channels_alone_stays(made):
    before = graph_of(made)
    after, changed = folded(before)
    assert not changed
    assert operations(after) == operations(before)


def test_what_would_overflow_stays():
    before = graph_of(
        lambda x: conv(x, kernel=tf.fill([3, 3, 3, 4], 1e30)) * tf.constant([1e30] * 4)
    )
    assert not folded(before)[1]


def test_an_output_in_between_keeps_its_answers():
    def made(x):
        layer = tf.identity(conv(x), "between")
        return norm(layer)

    before = graph_of(made)
    after, _ = folded(before, ("y:0", "between:0"))
    agree(before, after, outputs=("y:0", "between:0"))


def test_an_epsilon_that_was_left_out_as_the_default_is_the_default():
    before = graph_of(lambda x: norm(conv(x), epsilon=1e-4))
    shortened = copy.deepcopy(before)
    for node in shortened.node:
        node.attr.pop("epsilon", None)
    after, changed = folded(shortened)
    assert changed
    agree(before, after)
