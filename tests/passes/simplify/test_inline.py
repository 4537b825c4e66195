"""Calls are written out; loops and branches, which decide at each call what runs, stay whole."""

import numpy as np
import pytest
import tensorflow as tf

from strop.graph.quiet import quiet
from strop.passes.simplify.inline import Inline
from tests.graphs import INPUT, rewritten, run

X = np.array([[-1.0, 2.0], [3.0, -4.0]], "float32")


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


def graph_of(function, *, is_output=False):
    with tf.Graph().as_default() as graph:
        y = function(tf.compat.v1.placeholder(tf.float32, X.shape, INPUT))
        if not is_output:
            y = tf.identity(y, "y")
    return graph.as_graph_def(), y.name


@tf.function
def inner(x):
    return tf.nn.relu(x * 2.0)


@tf.function
def outer(x):
    return inner(x) + inner(x + 1.0)


@tf.function
def looping(x):
    return tf.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a * 2.0), [0, x])[1]


@pytest.mark.parametrize("is_output", [False, True])
def test_functions_in_functions_are_written_out(is_output):
    graph, y = graph_of(outer, is_output=is_output)
    assert any(node.op.endswith("PartitionedCall") for node in graph.node)

    after = rewritten(Inline, graph, outputs=(y,))

    assert not any(node.op.endswith("PartitionedCall") for node in after.node)
    assert not after.library.function
    np.testing.assert_array_equal(run(after, [y], X)[0], run(graph, [y], X)[0])


def test_a_loop_stays_a_loop_with_what_it_calls():
    graph, y = graph_of(looping)

    after = rewritten(Inline, graph, outputs=(y,))

    operations = {node.op for node in after.node}
    assert operations & {"While", "StatelessWhile"}
    assert not operations & {"Enter", "Exit", "Switch"}
    np.testing.assert_array_equal(run(after, [y], X)[0], X * 8)


def test_where_nothing_is_called_nothing_is_done():
    graph, y = graph_of(tf.nn.relu)
    assert rewritten(Inline, graph, outputs=(y,)) is None
