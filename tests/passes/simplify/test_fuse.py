"""What is fused for TensorFlow is written out again for everyone else, and answers alike both ways."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings

from strop.graph.quiet import quiet
from strop.graph.simplifying import Ends, leave_out_unneeded, regrappled
from strop.graph.spelling import spell_fused
from tests.graphs import INPUT, answers_and_bounds, programs, run

REMAP = ("remap", "constfold", "pruning")
KINDS = ("conv", "depthwise", "bias", "bias", "norm", "relu", "relu6", "residual", "identity")


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


@settings(deadline=None, max_examples=40)
@given(program=programs(kinds=KINDS))
def test_written_out_again_it_answers_alike(program):
    graph, x, wanted, bounds = answers_and_bounds(program)
    ends = Ends(graph.inputs, graph.outputs)
    leave_out_unneeded(graph.definition, ends)

    regrappled(graph.definition, ends, REMAP)
    spell_fused(graph.definition)

    assert not any(node.op.startswith("_Fused") for node in graph.definition.node)
    answers = run(graph.definition, graph.outputs, x)
    for answer, right, bound in zip(answers, wanted, bounds, strict=True):
        assert (np.abs(answer - right) <= bound).all()


@pytest.mark.parametrize(
    "function", [tf.nn.relu, tf.nn.relu6, tf.nn.elu, tf.nn.leaky_relu, tf.nn.tanh, tf.nn.sigmoid]
)
@pytest.mark.parametrize("layer", ["Conv2D", "MatMul"])
def test_each_activation_goes_into_the_kernel_and_comes_out_again(layer, function):
    random = np.random.default_rng(3)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (2, 6, 5, 3), INPUT)
        if layer == "Conv2D":
            made = tf.nn.conv2d(x, random.normal(size=(3, 3, 3, 4)).astype("float32"), 1, "SAME")
        else:
            made = tf.reshape(x, [2, 90]) @ random.normal(size=(90, 4)).astype("float32")
        tf.identity(function(tf.nn.bias_add(made, random.normal(size=4))), "y")
    definition, ends = graph.as_graph_def(), Ends([f"{INPUT}:0"], ["y:0"])
    x = random.normal(size=(2, 6, 5, 3)).astype("float32")
    (wanted,) = run(definition, ["y:0"], x)

    assert regrappled(definition, ends, REMAP)
    fused = [node for node in definition.node if node.op == f"_Fused{layer}"]
    assert len(fused) == 1
    np.testing.assert_allclose(run(definition, ["y:0"], x)[0], wanted, rtol=1e-4, atol=1e-5)

    if spell_fused(definition):
        assert layer in [node.op for node in definition.node]
    assert not any(node.op.startswith("_Fused") for node in definition.node)
    np.testing.assert_allclose(run(definition, ["y:0"], x)[0], wanted, rtol=1e-5, atol=1e-5)
