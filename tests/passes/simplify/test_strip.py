"""What only training, checking or looking on needs is gone; what steers or is asked for by name stays."""

import copy

import numpy as np
import pytest
import tensorflow as tf

from strop.graph.quiet import quiet
from strop.graph.simplifying import Ends, leave_out_unneeded
from strop.passes.simplify.strip import _strip
from tests.graphs import INPUT, run

SHAPE = (2, 6)


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


def graph_of(function, **names):
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, SHAPE, INPUT)
        tf.identity(function(x), "y", **names)
    return graph.as_graph_def()


def stripped(definition, outputs=("y:0",)):
    """The graph stripped, whether anything changed, and where dropout was left on."""
    ends, active = Ends([f"{INPUT}:0"], list(outputs)), []
    after = copy.deepcopy(definition)
    changed = _strip(after, ends, active)
    leave_out_unneeded(after, ends)
    return after, changed, active


def operations(definition):
    return sorted(n.op for n in definition.node if n.op not in ("Const", "Placeholder"))


def answers(definition):
    x = np.random.default_rng(1).uniform(-1, 1, SHAPE).astype("float32")
    return run(definition, ["y:0"], x)[0]


def noisy(x):
    """All that hands on, one behind the other."""
    x = tf.stop_gradient(tf.identity(tf.nn.relu(x)))
    x = tf.raw_ops.CheckNumerics(tensor=x, message="not finite")
    x = tf.compat.v1.placeholder_with_default(x, SHAPE)
    x = tf.raw_ops.PreventGradient(input=x, message="no")
    return tf.compat.v1.Print(x, [x], "look")


def test_what_only_hands_on_is_gone():
    before = graph_of(noisy)
    after, changed, _ = stripped(before)
    assert changed
    assert operations(after) == ["Identity", "Relu"]
    assert {node.name for node in after.node if node.op == "Identity"} == {"y"}
    np.testing.assert_array_equal(answers(after), answers(before))
    assert not stripped(after)[1]


def test_what_an_output_waits_for_in_vain_is_gone():
    def made(x):
        checks = [
            tf.compat.v1.Assert(tf.reduce_all(x < 10), [x]),
            tf.compat.v1.summary.scalar("mean", tf.reduce_mean(x)).op,
        ]
        with tf.control_dependencies(checks):
            return tf.nn.relu(x)

    after, changed, _ = stripped(graph_of(made))
    assert changed
    assert operations(after) == ["Identity", "Relu"]
    assert not any(name.startswith("^") for node in after.node for name in node.input)


def test_waiting_for_what_fills_a_table_stays():
    def made(x):
        table = tf.raw_ops.MutableHashTableV2(key_dtype=tf.int64, value_dtype=tf.float32)
        with tf.control_dependencies(
            [
                tf.raw_ops.LookupTableInsertV2(
                    table_handle=table, keys=tf.constant([1], tf.int64), values=[2.0]
                )
            ]
        ):
            return x + tf.raw_ops.LookupTableFindV2(
                table_handle=table, keys=tf.constant([1], tf.int64), default_value=0.0
            )

    before = graph_of(made)
    after, _, _ = stripped(before)
    np.testing.assert_array_equal(answers(after), answers(before))


def tf1_dropout(x, keep):
    lots = tf.raw_ops.RandomUniform(shape=tf.shape(x), dtype=tf.float32)
    lots = tf.raw_ops.AddV2(x=tf.raw_ops.Mul(x=lots, y=tf.constant(1.0)), y=tf.constant(0.0))
    mask = tf.floor(tf.constant(keep) + lots)
    return tf.raw_ops.RealDiv(x=x, y=tf.constant(keep)) * mask


def masked_dropout(x, keep):
    mask = tf.cast(tf.random.uniform(tf.shape(x)) >= 1 - keep, tf.float32)
    return mask * (x * (1 / keep))


def selected_dropout(x, keep):
    return tf.nn.dropout(x, rate=1 - keep)


@pytest.mark.parametrize("dropout", [tf1_dropout, masked_dropout, selected_dropout])
def test_dropout_that_was_left_on_is_gone_in_each_spelling_and_told(dropout):
    before = graph_of(lambda x: tf.nn.relu(dropout(tf.nn.relu(x), 0.75)))
    after, changed, active = stripped(before)
    assert changed
    assert len(active) == 1
    assert operations(after) == ["Identity", "Relu", "Relu"]


def test_dropout_that_keeps_all_is_gone_and_nothing_is_told():
    before = graph_of(lambda x: tf1_dropout(tf.nn.relu(x), 1.0))
    after, _, active = stripped(before)
    assert active == []
    np.testing.assert_allclose(answers(after), answers(before))


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(
            lambda x: x * tf.floor(tf.random.uniform(tf.shape(x)) + 0.5), id="not scaled back"
        ),
        pytest.param(lambda x: x + tf.random.normal(tf.shape(x)), id="noise"),
    ],
)
def test_lots_that_are_no_dropout_stay(made):
    before = graph_of(made)
    assert operations(stripped(before)[0]) == operations(before)


def test_branches_of_tensorflow_1_stay_whole():
    with tf.Graph().as_default() as graph, tf.compat.v1.Graph.as_default(graph):
        tf.compat.v1.disable_control_flow_v2()
        x = tf.compat.v1.placeholder(tf.float32, SHAPE, INPUT)
        chosen = tf.compat.v1.cond(
            tf.reduce_sum(x) > 0, lambda: tf.identity(x) * 2, lambda: tf.constant(1.0, shape=SHAPE)
        )
        tf.identity(tf.identity(chosen), "y")
        tf.compat.v1.enable_control_flow_v2()
    before = graph.as_graph_def()
    after, _, _ = stripped(before)
    assert {"Switch", "Merge"} <= set(operations(after))
    for sign in (1, -1):
        x = np.full(SHAPE, sign, "float32")
        np.testing.assert_array_equal(run(after, ["y:0"], x)[0], run(before, ["y:0"], x)[0])
