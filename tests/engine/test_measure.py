"""Costs measured in fresh processes."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import strop
from strop.core.contracts import Effort
from strop.core.errors import ExecutionError
from strop.engine.measure import process_costs
from strop.graph.reading import read


@pytest.fixture
def forty_wide(tmp_path):
    """A model that says it takes any width and runs at 40 alone, as a convnet may that needs some size."""
    weights = numpy_helper.from_array(np.ones((40, 2), np.float32), "w")
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", width])
        for name, width in (("x", "width"), ("y", 2))
    )
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "graph", [x], [y], [weights]
    )
    opsets = [helper.make_opsetid("", 17)]
    whole = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    (tmp_path / "model.onnx").write_bytes(whole.SerializeToString())
    return read(tmp_path / "model.onnx", tmp_path)


def test_a_fresh_process_is_asked_at_the_sizes_of_the_samples(forty_wide):
    with pytest.raises(ExecutionError, match="could not run the model"):
        process_costs(forty_wide, "onnxruntime", {}, repeats=1)

    seen = forty_wide.seen_with({"x": np.zeros((3, 40), "float32")})
    found = process_costs(seen, "onnxruntime", {}, repeats=1)

    assert found["cold_start"].value > 0


@pytest.mark.slow
def test_a_model_that_leaves_sizes_open_is_searched_written_and_verified(tmp_path, forty_wide):
    x = np.random.default_rng(0).random((40, 40), np.float32)
    result = strop.optimize(
        forty_wide.path, x, output=tmp_path / "out",
        request=strop.Request(effort=Effort.QUICK, runtimes=("onnxruntime", "openvino")),
    )  # fmt: skip

    assert strop.verify(result.folder / "best").holds
    assert "np.zeros((1, 40)" in (result.folder / "best" / "README.md").read_text()
