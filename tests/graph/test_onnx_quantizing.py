import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from strop.core import registry
from strop.core.model import Form, Model
from strop.core.samples import Samples
from strop.core.signature import Signature, TensorSpec
from strop.graph.onnx_quantizing import prepared, reader
from strop.graph.quiet import quiet
from strop.graph.reading import read
from tests.models import onnx_dense
from tests.passes.convert.conftest import PlainContext

SIGNATURE = Signature(
    (TensorSpec("x", (None, 4), "float32"),), (TensorSpec("y", (None, 4), "float32"),)
)


def test_a_shape_inference_that_fails_leaves_nothing_in_the_current_folder(tmp_path, monkeypatch):
    nodes = [
        helper.make_node(
            "Unheard", ["x"], ["z"], "first", domain="of"
        ),  # its shape nobody can infer
        helper.make_node("Relu", ["z"], ["y"], "second"),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("of", 1)]
    here, workspace = tmp_path / "here", tmp_path / "workspace"
    here.mkdir()
    workspace.mkdir()
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    monkeypatch.chdir(here)

    found = prepared(Model.at(Form.ONNX, path, SIGNATURE), workspace)

    assert found == path
    assert list(here.iterdir()) == []


RANDOM = np.random.default_rng(0)
FLOAT = TensorProto.FLOAT


class Calibrating(PlainContext):
    calibration = Samples({"x": RANDOM.normal(size=(16, 4)).astype(np.float32)})


def weights(name, *shape):
    return numpy_helper.from_array(RANDOM.normal(size=shape).astype(np.float32), name)


def applied(folder, name, nodes, constants, **settings):
    """Return what the pass `name` makes of a graph from x to y."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", FLOAT, [None, 4])],
        constants,
    )
    path = folder / "model.onnx"
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(content, path)
    (folder / "work").mkdir()
    with quiet():
        return registry.passes.get(name)(**settings).apply(
            Model.at(Form.ONNX, path, SIGNATURE), Calibrating(folder / "work")
        )


def test_of_nodes_without_names_the_one_asked_for_alone_stays_in_float(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["y"]),
    ]
    constants = [weights("first", 4, 4), weights("second", 4, 4)]

    made = applied(tmp_path, "quantize.onnx_static", nodes, constants, keep_float=("a",))

    assert made.facts["left_in_float"] == {"a": "asked for"}


def test_a_loop_whose_layers_stayed_in_float_is_listed(tmp_path):
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["goes_on"], ["goes_on_out"]),
            helper.make_node("MatMul", ["state", "inner"], ["state_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", FLOAT, [None, 4]),
        ],
        [
            helper.make_tensor_value_info("goes_on_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", FLOAT, [None, 4]),
        ],
        [weights("inner", 4, 4)],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], name="first"),
        helper.make_node("Loop", ["times", "", "a"], ["y"], name="loop", body=body),
    ]
    constants = [weights("first", 4, 4), numpy_helper.from_array(np.int64(3), "times")]

    made = applied(tmp_path, "quantize.onnx_static", nodes, constants)

    assert made.facts["left_in_float"] == {"y": "a Loop, which the quantizer does not look into"}


def test_convolutions_that_dynamic_quantization_leaves_alone_say_why(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], name="first"),
        helper.make_node("Reshape", ["a", "as_rows"], ["b"], name="rows"),
        helper.make_node("Conv", ["b", "kernel"], ["c"], name="convolution"),
        helper.make_node("Reshape", ["c", "as_matrix"], ["y"], name="matrix"),
    ]
    constants = [
        weights("first", 4, 4),
        weights("kernel", 1, 1, 1),
        numpy_helper.from_array(np.array([-1, 1, 4]), "as_rows"),
        numpy_helper.from_array(np.array([-1, 4]), "as_matrix"),
    ]

    made = applied(tmp_path, "quantize.onnx_dynamic", nodes, constants)

    assert made.facts["left_in_float"] == {
        "c": "convolutions are left alone: ONNX Runtime's dynamic integer ones are slower than float"
    }


def test_what_half_precision_leaves_in_single_is_listed(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Max", ["a", "zero"], ["b"]),
        helper.make_node("MatMul", ["b", "first"], ["y"]),
    ]

    made = applied(
        tmp_path, "quantize.onnx_float16", nodes, [weights("first", 4, 4), weights("zero", 4)]
    )

    assert made.facts["left_in_float"] == {"b": "the converter leaves Max in 32 bits"}


@pytest.mark.parametrize(("count", "stride", "strides"), [(10, 4, 2), (3, 4, 1), (10, None, None)])
def test_a_reader_is_read_in_full_strides(count, stride, strides, tmp_path):
    onnx_dense(tmp_path / "dense.onnx")
    model = read(tmp_path / "dense.onnx", tmp_path)
    samples = Samples({"x": np.arange(4 * count, dtype="float32").reshape(count, 4)})

    asked = reader(model, samples, stride=stride)

    if stride is None:
        assert asked.stride is None
        assert len(asked) == count
        return
    assert len(asked) == strides * asked.stride
    asked.set_range(len(asked) - asked.stride, len(asked))
    last = [asked.get_next() for _ in range(asked.stride + 1)]
    assert last[-1] is None
    assert last[-2]["x"].tolist() == samples.inputs["x"][len(asked) - 1 : len(asked)].tolist()
