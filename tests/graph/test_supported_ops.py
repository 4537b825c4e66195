"""What an engine has nothing for is told node by node, as its own converter or registry tells it."""

import pytest
import tensorflow as tf

from strop.core.errors import ConversionError, ParameterError, UnknownNameError
from strop.core.model import Form, Model
from strop.graph.readers.graph_def import read
from strop.graph.reading import Options
from strop.graph.supported_ops import TARGETS, unsupported
from strop.passes.convert.litert import ConvertToLiteRT
from strop.passes.convert.onnx import ConvertToONNX
from strop.passes.convert.openvino import ConvertToOpenVINO
from tests.graphs import Bare


def written(folder, function, *, dtype=tf.float32):
    """A frozen graph of a function of ``x``, its output called ``y``, as it is read."""
    with tf.Graph().as_default() as graph:
        tf.identity(function(tf.compat.v1.placeholder(dtype, [None, 4], "x")), "y")
    path = folder / "model.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return read(path, folder, Options())


def plain(x):
    return tf.nn.relu(x * 2.0)


def odd(x):
    """Two operations that hardly anyone has: Digamma, and one that TensorFlow's kernels in LiteRT have."""
    return tf.math.cumulative_logsumexp(tf.nn.relu(tf.math.digamma(x + 9.0), "kept"), axis=1)


@pytest.mark.parametrize("target", TARGETS)
def test_what_an_engine_has_something_for_is_not_told(tmp_path, target):
    assert unsupported(written(tmp_path, plain), target) == []


@pytest.mark.parametrize("target", ["litert", "onnxruntime", "openvino"])
def test_each_node_is_told_by_its_name(tmp_path, target):
    found = unsupported(written(tmp_path, odd), target)
    assert [(one.operation, one.node) for one in found] == [
        ("Digamma", "Digamma"),
        ("CumulativeLogsumexp", "CumulativeLogsumexp"),
    ]


def test_litert_has_more_with_tensorflows_kernels(tmp_path):
    model = written(tmp_path, odd)
    with_select = {
        one.operation for one in unsupported(model, "litert") if "select" in one.instead
    }
    assert with_select == {"CumulativeLogsumexp"}
    assert [one.operation for one in unsupported(model, "litert_select")] == ["Digamma"]


def test_xla_is_asked_for_its_own_kernels(tmp_path):
    model = written(
        tmp_path, lambda x: tf.strings.length(tf.strings.as_string(x, name="as_text"), name="long")
    )
    found = unsupported(model, "xla")
    assert [(one.operation, one.node) for one in found] == [
        ("AsString", "as_text"),
        ("StringLength", "long"),
    ]
    assert all("before the model" in one.instead for one in found)


def test_what_lies_in_a_loop_is_told_too(tmp_path):
    def looping(x):
        return tf.while_loop(
            lambda i, a: i < 3, lambda i, a: (i + 1, tf.math.digamma(a + 9.0)), [0, x]
        )[1]

    model = written(tmp_path, looping)

    for target in ("litert", "onnxruntime", "openvino"):
        assert "Digamma" in {one.operation for one in unsupported(model, target)}, target


def test_what_the_converter_will_not_even_let_pass_is_told(tmp_path):
    """A list of tensors whose shape is not known when it is traced, as a loop over time with a free batch has."""

    def stacked(x):
        values = tf.TensorArray(tf.float32, 3, element_shape=[None, 4])
        _, values = tf.while_loop(
            lambda i, a: i < 3, lambda i, a: (i + 1, a.write(i, x)), [0, values]
        )
        return tf.transpose(values.stack(), [1, 0, 2])

    found = unsupported(written(tmp_path, stacked), "litert")

    lists = [one for one in found if one.operation.startswith("TensorList")]
    assert lists
    assert all("batch size fixed while freezing" in one.instead for one in lists)


@pytest.mark.parametrize("kind", [ConvertToLiteRT, ConvertToONNX, ConvertToOpenVINO])
def test_a_model_is_refused_with_the_list(tmp_path, kind):
    with pytest.raises(ConversionError) as caught:
        kind().apply(written(tmp_path, odd), Bare(tmp_path))
    assert "has nothing for these operations: Digamma (Digamma)" in str(caught.value)
    assert "CumulativeLogsumexp (CumulativeLogsumexp)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_engine_or_no_tensorflow_model_is_refused(tmp_path):
    model = written(tmp_path, plain)
    with pytest.raises(UnknownNameError, match="there is no engine called 'tensorrt'"):
        unsupported(model, "tensorrt")
    other = Model.at(Form.ONNX, model.path, model.signature, model.binding)
    with pytest.raises(ParameterError, match="of the form onnx"):
        unsupported(other, "litert")
