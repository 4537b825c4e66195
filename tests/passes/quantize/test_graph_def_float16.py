"""Weights of a frozen graph in float16: which, and what stays."""

import numpy as np
import pytest
import tensorflow as tf

from strop.graph.quiet import quiet
from strop.passes.quantize.graph_def_float16 import Float16GraphDef
from tests.graphs import INPUT, rewritten, run

KERNEL = np.random.default_rng(0).normal(size=(32, 16)).astype("float32")
X = np.random.default_rng(1).normal(size=(4, 32)).astype("float32")


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


def graph_of(kernel, *, is_output=False):
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, X.shape, INPUT)
        with tf.control_dependencies([tf.identity(x, "first")]):
            weights = tf.constant(kernel, name="y" if is_output else "weights")
        made = tf.matmul(x, weights)
        if not is_output:
            tf.identity(made, "y")
    return graph.as_graph_def()


def test_large_weights_are_halved_and_cast_back():
    before = graph_of(KERNEL)

    after = rewritten(Float16GraphDef, before)

    assert after.ByteSize() < before.ByteSize() - KERNEL.nbytes // 2 + 400
    exact = graph_of(KERNEL.astype("float16").astype("float32"))
    (wanted,), (found,) = (run(graph, ["y:0"], X) for graph in (exact, after))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "graph",
    [
        graph_of(KERNEL[:, :2]),  # 64 weights
        graph_of(KERNEL * 1e6),  # beyond float16
        graph_of(KERNEL, is_output=True),
    ],
)
def test_what_is_small_out_of_range_or_an_output_stays(graph):
    assert rewritten(Float16GraphDef, graph) is None


def test_from_how_many_weights_on_can_be_said():
    graph = graph_of(KERNEL[:, :2])
    assert rewritten(lambda: Float16GraphDef(smallest=64), graph) is not None
