"""What every rewriting of graphs promises, held on random graphs, alone and in random orders."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strop.core import registry
from strop.core.contracts import Exactness, Unchanged
from strop.core.model import Form, Model
from strop.graph.frozen import read_graph
from strop.graph.quiet import quiet
from strop.graph.simplifying import Ends, leave_out_unneeded
from tests.graphs import INPUT, Bare, answers_and_bounds, as_model, programs, run

NAMES = [name for name in registry.passes.names() if name.startswith("simplify.")]
SLOW = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


def model_of(graph, folder):
    """A drawn graph as a model on disk, what nothing needs left out."""
    leave_out_unneeded(graph.definition, Ends(graph.inputs, graph.outputs))
    return as_model(graph.definition, graph.inputs, graph.outputs, Path(folder))


def applied(name, model, folder):
    """What a pass makes of a model; the model itself where it finds nothing to do."""
    found = registry.passes.get(name)().apply(model, Bare(folder))
    return model if isinstance(found, Unchanged) else found


def nodes(model):
    return len(read_graph(model.path).node)


@pytest.mark.parametrize("name", NAMES)
@SLOW
@given(program=programs())
def test_every_pass_does_as_it_declares(name, program):
    kind = registry.passes.get(name)
    graph, x, wanted, bounds = answers_and_bounds(program)
    with tempfile.TemporaryDirectory() as folder:
        given_ = model_of(graph, folder)
        digest = given_.digest
        found = applied(name, given_, folder)
        again = applied(name, found, folder)

        assert (
            Model.at(Form.GRAPH_DEF, given_.path, given_.signature, given_.binding).digest
            == digest
        )
        assert found.signature == given_.signature
        assert nodes(found) <= nodes(given_) or not kind.never_grows
        assert again is found or not kind.is_idempotent
        answers = run(read_graph(found.path), graph.outputs, x)
    for answer, right, bound in zip(answers, wanted, bounds, strict=True):
        assert answer.shape == right.shape
        if kind.exactness is Exactness.EXACT:
            np.testing.assert_array_equal(answer, right)
        assert (np.abs(answer - right) <= bound).all()


@SLOW
@given(program=programs(most=10), order=st.permutations(NAMES))
def test_in_any_order_too(program, order):
    graph, x, wanted, bounds = answers_and_bounds(program)
    with tempfile.TemporaryDirectory() as folder:
        model = model_of(graph, folder)
        for name in order:
            model = applied(name, model, folder)
        answers = run(read_graph(model.path), graph.outputs, x)
    for answer, right, bound in zip(answers, wanted, bounds, strict=True):
        assert (np.abs(answer - right) <= bound).all()


def loop_of_today(x):
    return tf.while_loop(
        lambda i, a: i < 3, lambda i, a: (i + 1, tf.nn.relu(a * 2.0 - 0.5)), [tf.constant(0), x]
    )[1]


def loop_in_a_loop(x):
    def body(i, a):
        return i + 1, tf.while_loop(lambda j, b: j < i, lambda j, b: (j + 1, b + a), [0, a])[1]

    return tf.while_loop(lambda i, a: i < 3, body, [tf.constant(0), x])[1]


def branch(x):
    """Which side runs is decided by what goes in, and each side computes something of its own."""
    positive = tf.reduce_sum(x) > 0
    return tf.cond(positive, lambda: tf.identity(x) * 2.0, lambda: tf.stop_gradient(x) - 1.0)


@pytest.mark.parametrize("name", [*NAMES, "all"])
@pytest.mark.parametrize("is_old", [True, False], ids=["TensorFlow 1", "TensorFlow 2"])
@pytest.mark.parametrize("function", [loop_of_today, loop_in_a_loop, branch])
def test_loops_and_branches_stay_whole_and_right(tmp_path, function, is_old, name):
    with tf.Graph().as_default() as graph:
        if is_old:
            tf.compat.v1.disable_control_flow_v2()
        x = tf.compat.v1.placeholder(tf.float32, (2, 3), INPUT)
        tf.identity(function(tf.identity(x)) * 1.0 + 0.0, "y")
        tf.compat.v1.enable_control_flow_v2()
    definition = graph.as_graph_def()
    steering = {"Switch", "Merge", "While", "StatelessWhile", "If", "StatelessIf"}
    assert steering & {node.op for node in definition.node}
    model = as_model(definition, (f"{INPUT}:0",), ("y:0",), tmp_path)
    for step in NAMES if name == "all" else [name]:
        model = applied(step, model, tmp_path)

    after = read_graph(model.path)

    assert steering & {node.op for node in after.node}
    for sign in (1, -1):
        values = sign * np.arange(1, 7, dtype="float32").reshape(2, 3)
        (wanted,), (found,) = (run(one, ["y:0"], values) for one in (definition, after))
        np.testing.assert_array_equal(found, wanted)
