import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from strop.core.errors import ModelError, UnsafeModelError
from strop.core.model import Form
from strop.graph.reading import Options, read
from strop.runtimes.tensorflow import TensorFlow

DATA = Path(os.environ.get("STROP_DATA", Path(__file__).parents[4] / "shared" / "data"))
FROZEN = DATA / "models" / "frozen_graphs"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"there is no {DATA}")
v1 = tf.compat.v1


def write(path, build):
    with tf.Graph().as_default() as graph:
        build()
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def answers(model, *inputs):
    with TensorFlow().open(model) as predictor:
        return predictor.run(list(inputs))


def test_placeholders_are_inputs_and_what_nobody_reads_is_an_output(tmp_path):
    def build():
        x = v1.placeholder(tf.float32, [None, 3], "x")
        tf.nn.softmax(tf.matmul(x, tf.eye(3)), name="likely")
        tf.reduce_sum(x, axis=1, name="total")

    model = read(write(tmp_path / "model.pb", build), tmp_path)

    assert model.form is Form.GRAPH_DEF
    assert str(model.signature) == (
        "(x: float32[?,3]) -> (likely: float32[?,3], total: float32[?])"
    )


def test_named_inputs_and_outputs_cut_the_graph(tmp_path):
    def build():
        x = v1.placeholder(tf.float32, [None, 3], "x")
        middle = tf.multiply(x, 2.0, name="middle")
        tf.add(tf.nn.relu(middle, name="kept"), 1.0, name="end")

    path = write(tmp_path / "model.pb", build)
    model = read(path, tmp_path, Options(inputs=("middle",), outputs=("kept",)))

    (kept,) = answers(model, np.array([[-1.0, 2.0, 3.0]], np.float32))
    assert kept.tolist() == [[0.0, 2.0, 3.0]]


def test_a_name_that_is_none_gets_the_nearest_offered(tmp_path):
    path = write(
        tmp_path / "model.pb",
        lambda: tf.add(v1.placeholder(tf.float32, [None], "x"), 1.0, "final"),
    )

    with pytest.raises(ModelError) as caught:
        read(path, tmp_path, Options(outputs=("fnal",)))

    assert (
        str(caught.value) == "the graph has no node called 'fnal'.\nThe nearest: final, final/y."
    )


def test_a_constant_default_stands_and_one_from_a_pipeline_is_an_input(tmp_path):
    def build():
        drawn = v1.data.make_one_shot_iterator(
            v1.data.Dataset.from_tensors(tf.zeros([2, 3]))
        ).get_next()
        image = v1.placeholder_with_default(drawn, [None, 3], "image")
        scale = v1.placeholder_with_default(tf.constant(5.0), [], "scale")
        tf.multiply(image, scale, name="scaled")

    model = read(write(tmp_path / "model.pb", build), tmp_path)

    (scaled,) = answers(model, np.ones((1, 3), np.float32))
    assert model.signature.input_names == ("image",)
    assert scaled.tolist() == [[5.0, 5.0, 5.0]]


def test_a_training_switch_is_taken_as_off_and_that_is_said(tmp_path):
    def build():
        x = v1.placeholder(tf.float32, [None, 3], "x")
        training = v1.placeholder(tf.bool, [], "training")
        tf.where(training, x * 0.0, x, name="y")

    model = read(write(tmp_path / "model.pb", build), tmp_path)

    (y,) = answers(model, np.ones((1, 3), np.float32))
    assert y.tolist() == [[1.0, 1.0, 1.0]]
    assert model.facts["notes"] == [
        "the placeholder 'training' is taken as False, as it stands when a model is used"
    ]


def test_an_unknown_shape_is_asked_for(tmp_path):
    path = write(
        tmp_path / "model.pb", lambda: tf.add(v1.placeholder(tf.float32, None, "x"), 1.0, "y")
    )

    with pytest.raises(ModelError) as caught:
        read(path, tmp_path)
    model = read(path, tmp_path, Options(shapes={"x": (None, 4)}))

    assert str(caught.value) == (
        f"'{path}' does not tell the shape of its input 'x'.\n"
        "Give it, the batch first; a ? leaves a dimension free.\n"
        "  --shape x=?,224,224,3"
    )
    assert str(model.signature) == "(x: float32[?,4]) -> (y: float32[?,4])"


def test_a_shape_that_does_not_fit_is_refused(tmp_path):
    def build():
        tf.matmul(v1.placeholder(tf.float32, None, "x"), tf.eye(3), name="y")

    path = write(tmp_path / "model.pb", build)

    with pytest.raises(ModelError, match=r"can't be run on x: float32\[\?,4\]"):
        read(path, tmp_path, Options(shapes={"x": (None, 4)}))


def test_variables_are_refused(tmp_path):
    def build():
        x = v1.placeholder(tf.float32, [None, 3], "x")
        tf.matmul(x, v1.get_variable("weights", [3, 2]), name="y")

    with pytest.raises(ModelError, match=r"is not frozen: it has 1 variables \('weights'"):
        read(write(tmp_path / "model.pb", build), tmp_path)


def test_reading_files_is_refused_where_the_outputs_depend_on_it(tmp_path):
    def build():
        x = v1.placeholder(tf.float32, [None], "x")
        length = tf.strings.length(tf.io.read_file("/etc/hostname", name="peek"))
        tf.add(x, tf.cast(length, tf.float32), name="y")

    path = write(tmp_path / "model.pb", build)

    with pytest.raises(UnsafeModelError) as caught:
        read(path, tmp_path)

    assert caught.value.allow == "file-ops"
    assert "ReadFile ('peek'), which reads or writes files" in str(caught.value)
    assert read(path, tmp_path, Options(allow=frozenset({"file-ops"}))).signature.inputs


def test_custom_operations_are_named(tmp_path):
    path = write(
        tmp_path / "model.pb", lambda: tf.add(v1.placeholder(tf.float32, [None], "x"), 1.0, "y")
    )
    definition = v1.GraphDef.FromString(path.read_bytes())
    definition.node[-1].op = "MyOwnAdd"
    path.write_bytes(definition.SerializeToString())

    with pytest.raises(ModelError, match="uses the operation MyOwnAdd, which TensorFlow does not"):
        read(path, tmp_path)


def test_text_graphs_are_read(tmp_path):
    with tf.Graph().as_default() as graph:
        tf.add(v1.placeholder(tf.float32, [None], "x"), 1.0, "y")
    path = tmp_path / "model.pbtxt"
    path.write_text(str(graph.as_graph_def()))

    (y,) = answers(read(path, tmp_path), np.zeros(2, np.float32))

    assert y.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_graph_cut_short_is_a_model_error(tmp_path, share):
    path = write(
        tmp_path / "model.pb", lambda: tf.add(v1.placeholder(tf.float32, [None], "x"), 1.0, "y")
    )
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    with pytest.raises(ModelError):
        read(path, tmp_path)


@needs_data
def test_a_training_graph_gives_its_own_answers(tmp_path):
    model = read(FROZEN / "faced" / "face_corrector.pb", tmp_path)

    assert model.signature.input_names == ("img",)
    assert model.signature.output_names == ("X", "Y", "W", "H")


@needs_data
def test_a_graph_with_a_fixed_batch_says_so(tmp_path):
    model = read(FROZEN / "mobilenet_v1_0.25_128" / "retrained_graph.pb", tmp_path)

    assert str(model.signature) == (
        "(input: float32[1,128,128,3]) -> (final_result: float32[1,6])"
    )
    assert model.binding.batch == 1


def test_a_graph_of_more_than_a_protocol_buffer_holds_is_said_to_be(tmp_path):
    path = tmp_path / "model.pb"
    with path.open("wb") as file:
        file.truncate(2**31)  # sparse: it takes no room

    with pytest.raises(ModelError) as caught:
        read(path, tmp_path)

    assert str(caught.value).startswith(
        f"'{path}' has 2.1 GB, and a GraphDef can't have more than 2 GB.\n"
    )


def test_a_graph_in_a_circle_is_refused(tmp_path):
    graph = v1.GraphDef()
    for name, reads in (("a", "b"), ("b", "a")):
        node = graph.node.add(name=name, op="Relu", input=[reads])
        node.attr["T"].type = tf.float32.as_datatype_enum
    (tmp_path / "model.pb").write_bytes(graph.SerializeToString())

    with pytest.raises(ModelError, match="circle"):
        read(tmp_path / "model.pb", tmp_path, Options(inputs=("a",), outputs=("b",)))


def test_an_output_may_be_an_input_too(tmp_path):
    def build():
        x = v1.placeholder(tf.float32, [None, 3], "x")
        tf.add(x, 1.0, name="y")

    path = write(tmp_path / "model.pb", build)
    model = read(path, tmp_path, Options(inputs=("x",), outputs=("x", "y")))

    given, more = answers(model, np.ones((1, 3), np.float32))
    assert given.tolist() == [[1.0, 1.0, 1.0]]
    assert more.tolist() == [[2.0, 2.0, 2.0]]
