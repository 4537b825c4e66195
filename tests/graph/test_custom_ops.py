"""Operations that TensorFlow does not have: known ones stand in for them, so that the whole can be run and held to."""

import numpy as np
import pytest
import tensorflow as tf

import strop
from strop.core.errors import ModelError
from strop.graph.custom_ops import custom_nodes, put_back, without_custom
from strop.graph.frozen import imported, read_graph
from strop.graph.quiet import quiet

LAST = {"first": "custom/first:0", "last": "last:0"}


def norm(x, seed):
    random = np.random.default_rng(seed)
    scale, offset, mean = random.normal(size=(3, x.shape[-1])).astype("float32")
    return tf.compat.v1.nn.fused_batch_norm(
        x, scale, offset, mean, mean**2 + 1, is_training=False
    )[0]


def convolved(x, channels, seed):
    kernel = np.random.default_rng(seed).normal(size=(3, 3, x.shape[-1], channels)) / 5
    return norm(tf.nn.conv2d(x, kernel.astype("float32"), 1, "SAME"), seed)


def known(shapes_noted=True):
    """A graph whose operations are all TensorFlow's: a TopKV2 in the middle, with two outputs, and a Softplus at an end."""
    with quiet(), tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 6, 6, 3], "x")
        y = tf.nn.dropout(convolved(x, 4, 0), rate=0.0)
        values, places = tf.math.top_k(tf.identity(y), 2, name="custom/middle")
        with tf.control_dependencies([values]):
            z = convolved(values, 5, 1) + tf.cast(places[..., :1], tf.float32)
        tf.nn.relu(z, name="last")
        tf.math.softplus(tf.reduce_mean(z, [1, 2]), name="custom/first")
    return graph.as_graph_def(add_shapes=shapes_noted)


def made_custom(definition):
    """The same graph with operations that nobody knows."""
    other = type(definition)()
    other.CopyFrom(definition)
    for node in other.node:
        if node.op in ("TopKV2", "Softplus"):
            node.op = f"My{node.op}"
    return other


def made_known(definition):
    other = type(definition)()
    other.CopyFrom(definition)
    for node in other.node:
        node.op = node.op.removeprefix("My")
    return other


def answers(definition, outputs):
    x = np.random.default_rng(3).normal(size=(2, 6, 6, 3)).astype("float32")
    return [o.numpy() for o in tf.function(imported(definition, ["x:0"], outputs))(tf.constant(x))]


def test_a_graph_is_whole_again_once_they_are_put_back():
    definition = made_custom(known())
    assert {n.op for n in custom_nodes(definition)} == {"MyTopKV2", "MySoftplus"}
    cut = without_custom(definition)
    assert not custom_nodes(cut)
    put_back(cut, definition)
    wanted = answers(known(), list(LAST.values()))
    for answer, one in zip(answers(made_known(cut), list(LAST.values())), wanted, strict=True):
        np.testing.assert_array_equal(answer, one)


@pytest.mark.slow
def test_a_graph_is_cleaned_around_them(tmp_path):
    (tmp_path / "in.pb").write_bytes(made_custom(known()).SerializeToString())
    found = strop.simplify(tmp_path / "in.pb", tmp_path / "out.pb")
    assert found.inputs == ("x:0",)
    assert sorted(found.outputs) == sorted(LAST.values())
    assert found.is_same
    assert any("MyTopKV2 ('custom/middle')" in note for note in found.notes)
    written = read_graph(tmp_path / "out.pb")
    assert {n.op for n in custom_nodes(written)} == {"MyTopKV2", "MySoftplus"}
    assert not [n for n in written.node if "BatchNorm" in n.op]
    assert len(written.node) < len(known().node)
    wanted = answers(known(), list(found.outputs))
    for answer, one in zip(answers(made_known(written), list(found.outputs)), wanted, strict=True):
        np.testing.assert_allclose(answer, one, atol=1e-5)


@pytest.mark.slow
def test_only_those_that_the_named_output_needs_stay(tmp_path):
    (tmp_path / "in.pb").write_bytes(made_custom(known()).SerializeToString())
    options = strop.Options(inputs=("x",), outputs=("last",))
    request = strop.Request(options=options)
    found = strop.simplify(tmp_path / "in.pb", tmp_path / "out.pb", request=request)
    assert (found.inputs, found.outputs) == (("x:0",), ("last:0",))
    assert [n.op for n in custom_nodes(read_graph(tmp_path / "out.pb"))] == ["MyTopKV2"]


def test_shapes_that_nobody_noted_are_asked_for(tmp_path):
    (tmp_path / "in.pb").write_bytes(made_custom(known(shapes_noted=False)).SerializeToString())
    with pytest.raises(ModelError, match="--shape custom/middle"):
        strop.simplify(tmp_path / "in.pb", tmp_path / "out.pb")
    assert not (tmp_path / "out.pb").exists()


@pytest.mark.slow
def test_what_would_have_to_run_them_refuses_them_by_name(tmp_path):
    (tmp_path / "in.pb").write_bytes(made_custom(known()).SerializeToString())
    with pytest.raises(ModelError, match="uses the operation My"):
        strop.inspect(tmp_path / "in.pb")
