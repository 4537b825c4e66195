"""Layers for channels-first data are written for channels-last, and answer as the same layers do there."""

import numpy as np
import pytest
import tensorflow as tf

from strop.graph.quiet import quiet
from strop.passes.simplify.layout import Layout
from tests.graphs import INPUT, rewritten, run

RANDOM = np.random.default_rng(0)
KERNELS = [RANDOM.normal(size=(3, 3, 3, 4)), RANDOM.normal(size=(3, 3, 4, 4))]
X = RANDOM.normal(size=(2, 3, 8, 6)).astype("float32")


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


def network(x, order):
    for kernel in KERNELS:
        x = tf.nn.conv2d(x, kernel.astype("float32"), 1, "SAME", data_format=order)
        x = tf.nn.relu(tf.nn.bias_add(x, np.arange(4, dtype="float32"), data_format=order))
    return tf.nn.max_pool2d(x, 2, 2, "VALID", data_format=order)


def graph_of(function):
    with tf.Graph().as_default() as graph:
        tf.identity(function(tf.compat.v1.placeholder(tf.float32, X.shape, INPUT)), "y")
    return graph.as_graph_def()


def test_channels_first_layers_are_written_for_channels_last():
    graph = graph_of(lambda x: network(x, "NCHW"))
    turned = graph_of(
        lambda x: tf.transpose(network(tf.transpose(x, [0, 2, 3, 1]), "NHWC"), [0, 3, 1, 2])
    )

    after = rewritten(Layout, graph)

    orders = {node.attr["data_format"].s for node in after.node if "data_format" in node.attr}
    assert orders == {b"NHWC"}
    assert sum(node.op == "Transpose" for node in after.node) == 2  # at the ends alone
    (wanted,), (found,) = (run(one, ["y:0"], X) for one in (turned, after))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_channels_last_layers_stay():
    assert (
        rewritten(Layout, graph_of(lambda x: network(tf.transpose(x, [0, 2, 3, 1]), "NHWC")))
        is None
    )
