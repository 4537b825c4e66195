import onnx
from onnx import TensorProto, helper

from strop.core.model import Form, Model
from strop.core.signature import Signature, TensorSpec
from strop.graph.onnx_quantizing import prepared

SIGNATURE = Signature(
    (TensorSpec("x", (None, 4), "float32"),), (TensorSpec("y", (None, 4), "float32"),)
)


def test_a_shape_inference_that_fails_leaves_nothing_in_the_current_folder(tmp_path, monkeypatch):
    nodes = [
        helper.make_node("Unheard", ["x"], ["z"], domain="of"),  # its shape nobody can infer
        helper.make_node("Relu", ["z"], ["y"]),
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
