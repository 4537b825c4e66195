import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from strop.core.signature import Signature, TensorSpec
from strop.graph.frozen import FrozenGraph, freeze, imported, refrozen, traced, with_shapes
from strop.graph.keras_models import by_name, signature_of
from strop.graph.recurrent import recurrent_layers, unroll
from tests import models

v1 = tf.compat.v1


def frozen(model, **settings):
    signature = signature_of(model)
    return freeze(lambda *tensors: by_name(model, tensors, signature), signature, **settings)


def spec(name, *shape, dtype="float32"):
    return TensorSpec(name, shape, dtype)


def operations(graph):
    return {node.op for node in graph.definition.node}


def run(graph, *inputs):
    function = tf.function(imported(graph.definition, graph.inputs, graph.outputs))
    return [result.numpy() for result in function(*map(tf.constant, inputs))]


def test_a_frozen_graph_has_no_variables_and_answers_alike():
    model = models.convnet()
    x = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)

    graph = frozen(model)

    assert not operations(graph) & {"VarHandleOp", "ReadVariableOp", "StatefulPartitionedCall"}
    # A softmax is at most 1, and the chain of eight layers rounds each product once: far below 1e-5.
    np.testing.assert_allclose(run(graph, x)[0], np.asarray(model(x)), atol=1e-5)


def test_inputs_and_outputs_are_named_after_the_signature():
    graph = frozen(models.two_in_two_out())

    assert graph.inputs == ("deep:0", "wide:0")
    assert graph.outputs == ("kind:0", "score:0")
    assert {"deep", "wide", "kind", "score"} <= {node.name for node in graph.definition.node}


def test_names_that_tensorflow_does_not_take_are_bent_as_little_as_can_be():
    signature = Signature((spec("a b", None), spec("_c", None)), (spec("a/b", None),))

    graph = freeze(lambda a, c: [a + c], signature)

    assert graph.inputs == ("a_b:0", "c:0")
    assert graph.outputs == ("a_b_output:0",)


def test_a_node_within_makes_room_for_an_output_of_its_name():
    signature = Signature((spec("x", None),), (spec("y", None),))

    graph = freeze(lambda x: [tf.multiply(x, 2.0, name="y")], signature)

    assert graph.outputs == ("y:0",)
    assert run(graph, np.float32([1.5]))[0].tolist() == [3.0]


def test_freezing_again_adds_nothing():
    once = frozen(models.convnet())

    again = with_shapes(once, signature_of(models.convnet()), batch=None)

    assert len(again.definition.node) <= len(once.definition.node)
    assert again.outputs == once.outputs


def test_an_input_that_nobody_reads_stays():
    signature = Signature((spec("used", None, 2), spec("unused", None, 3)), (spec("y", None, 2),))

    graph = freeze(lambda used, unused: [used * 2.0], signature)

    assert graph.inputs == ("used:0", "unused:0")
    assert run(graph, np.ones((1, 2), np.float32), np.ones((1, 3), np.float32))[0].tolist() == [
        [2.0, 2.0]
    ]


def test_an_output_may_be_an_input():
    signature = Signature((spec("x", None),), (spec("same", None), spec("twice", None)))

    graph = freeze(lambda x: [x, x * 2.0], signature)

    assert [value.tolist() for value in run(graph, np.float32([4.0]))] == [[4.0], [8.0]]


def test_the_batch_can_be_fixed_while_tracing_and_later():
    signature = signature_of(models.convnet())
    free = frozen(models.convnet())

    early = traced(frozen(models.convnet(), batch=4), signature, batch=4)
    late = traced(free, signature, batch=4)

    assert traced(free, signature, batch=None).outputs[0].shape.as_list() == [None, 5]
    assert early.outputs[0].shape.as_list() == late.outputs[0].shape.as_list() == [4, 5]


def test_a_branch_on_a_constant_is_decided_and_codes_are_decoded():
    with tf.Graph().as_default() as whole:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        training = v1.placeholder_with_default(False, [], "training")
        off, on = v1.raw_ops.Switch(data=x, pred=training)
        chosen, _ = v1.raw_ops.Merge(inputs=[off * 3.0, on * 5.0])
        codes = tf.constant(np.array([[0, 255]], np.uint8).view(tf.quint8.as_numpy_dtype))
        weights = v1.raw_ops.Dequantize(input=codes, min_range=0.0, max_range=1.0)
        tf.multiply(chosen, weights, name="y")
    theirs = FrozenGraph(whole.as_graph_def(), ("x:0",), ("y:0",))
    signature = Signature((spec("x", None, 2),), (spec("y", None, 2),))

    ours = refrozen(theirs, signature)

    assert not operations(ours) & {"Switch", "Merge", "Dequantize", "PlaceholderWithDefault"}
    x = np.ones((1, 2), np.float32)
    np.testing.assert_array_equal(run(ours, x)[0], run(theirs, x)[0])


def test_loops_of_two_models_that_call_their_bodies_alike_do_not_mix():
    signature = Signature((spec("x", None),), (spec("y", None),))

    def looped(step):
        def function(x):
            return [tf.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, step(v)), (0, x))[1]]

        return freeze(function, signature)

    adding, doubling = looped(lambda v: v + 1.0), looped(lambda v: v * 2.0)
    for graph in (adding, doubling):
        for number, inner in enumerate(graph.definition.library.function):
            was, now = inner.signature.name, f"body_{number}"
            inner.signature.name = now
            for node in graph.definition.node:
                for attribute in node.attr.values():
                    if attribute.func.name == was:
                        attribute.func.name = now

    x = np.float32([1.0])
    assert [run(adding, x)[0].tolist(), run(doubling, x)[0].tolist()] == [[4.0], [8.0]]


@pytest.mark.slow
def test_a_loop_runs_in_a_process_that_has_never_seen_its_model(tmp_path):
    model = models.bidirectional_lstm()
    graph = frozen(model)
    x = np.arange(24, dtype=np.int32).reshape(2, 12)
    (tmp_path / "model.pb").write_bytes(graph.definition.SerializeToString())
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys, numpy as np, tensorflow as tf; from pathlib import Path\n"
        "from strop.graph.frozen import imported, read_graph\n"
        "folder = Path(sys.argv[1])\n"
        "function = imported(read_graph(folder / 'model.pb'), ['tokens:0'], ['label:0'])\n"
        "answer = tf.function(function)(tf.constant(np.load(folder / 'x.npy')))[0]\n"
        "np.save(folder / 'y.npy', answer.numpy())\n"
    )

    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)

    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), np.asarray(model(x)), atol=1e-5)


def test_unrolling_leaves_no_loop_and_the_same_answers():
    model = models.bidirectional_lstm()
    x = np.arange(24, dtype=np.int32).reshape(2, 12)
    expected = np.asarray(model(x))

    unroll(model)
    graph = frozen(model)

    assert len(recurrent_layers(model)) == 3  # two within Bidirectional, and one more
    assert not operations(graph) & {"While", "StatelessWhile"}
    np.testing.assert_allclose(run(graph, x)[0], expected, atol=1e-5)
