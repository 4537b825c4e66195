import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from strop.graph.onnx_spelling import spell_gelu, spell_layer_normalization

SIZE = 6


def model_of(nodes, constants):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3, SIZE])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def run(proto, x):
    onnx.checker.check_model(proto)
    return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]


def operations(proto):
    return [node.op_type for node in proto.graph.node]


def normalization(*, epsilon=1e-3, axis=-1, scale=True, shift="add", square_of="x"):
    rng = np.random.default_rng(0)
    constants = {
        "axes": np.array([axis]),
        "epsilon": np.float32(epsilon),
        "gamma": rng.normal(1, 0.1, (1, 1, SIZE)).astype(np.float32),
        "beta": rng.normal(0, 1, (1, 1, SIZE)).astype(np.float32),
    }
    node = helper.make_node
    nodes = [
        node("ReduceMean", ["x", "axes"], ["mean"]),
        node("Sub", [square_of, "mean"], ["apart"]),
        node("Mul", ["apart", "apart"], ["square"]),
        node("ReduceMean", ["square", "axes"], ["variance"]),
        node("Add", ["variance", "epsilon"], ["shifted"]),
        node("Sqrt", ["shifted"], ["root"]),
        node("Reciprocal", ["root"], ["inverse"]),
    ]
    slope = "inverse"
    if scale:
        nodes.append(node("Mul", ["inverse", "gamma"], ["slope"]))
        slope = "slope"
    nodes.append(node("Mul", ["x", slope], ["scaled"]))
    if shift == "add":
        nodes += [
            node("Neg", ["mean"], ["less"]),
            node("Mul", ["less", slope], ["back"]),
            node("Add", ["back", "beta"], ["moved"]),
        ]
    elif shift == "subtract":
        nodes += [node("Mul", ["mean", slope], ["back"]), node("Sub", ["beta", "back"], ["moved"])]
    else:
        nodes += [node("Neg", ["mean"], ["less"]), node("Mul", ["less", slope], ["moved"])]
    nodes.append(node("Add", ["scaled", "moved"], ["y"]))
    return model_of(nodes, constants)


@pytest.mark.parametrize("shift", ["add", "subtract", "none"])
def test_layer_normalization_becomes_one_operation(shift):
    proto = normalization(shift=shift)
    x = np.random.default_rng(1).normal(3, 2, (2, 3, SIZE)).astype(np.float32)
    before = run(proto, x)

    found = spell_layer_normalization(proto)

    assert found == 1
    assert operations(proto) == ["LayerNormalization"]
    # Values up to 10 · (a slope of up to 2), each rounded a dozen times on the way.
    np.testing.assert_allclose(run(proto, x), before, atol=12 * 2.0**-24 * 20)


def test_its_parts_stay_for_who_else_reads_them():
    proto = normalization()
    proto.graph.output.append(
        helper.make_tensor_value_info("mean", TensorProto.FLOAT, [None, 3, 1])
    )

    assert spell_layer_normalization(proto) == 1
    assert operations(proto) == ["ReduceMean", "LayerNormalization"]


@pytest.mark.parametrize(
    "other",
    [
        {"axis": 1},  # along another axis
        {
            "scale": False,
            "shift": "none",
        },  # the size of what it scales can't be told: nothing to hold it to
        {"square_of": "gamma"},  # the variance of something else
    ],
)
def test_what_only_looks_like_it_is_left_alone(other):
    proto = normalization(**other)

    assert spell_layer_normalization(proto) == 0
    assert "LayerNormalization" not in operations(proto)


def test_gelu_divides_so_that_onnx_runtime_fuses_it(tmp_path):
    node = helper.make_node
    proto = model_of(
        [
            node("Mul", ["x", "root"], ["scaled"]),
            node("Erf", ["scaled"], ["erf"]),
            node("Add", ["erf", "one"], ["sum"]),
            node("Mul", ["x", "half"], ["halved"]),
            node("Mul", ["halved", "sum"], ["y"]),
        ],
        {"root": np.float32(np.sqrt(0.5)), "one": np.float32(1), "half": np.float32(0.5)},
    )
    x = np.random.default_rng(0).normal(size=(1, 3, SIZE)).astype(np.float32)
    before = run(proto, x)

    found = spell_gelu(proto)

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(proto.SerializeToString(), options)
    assert found == 1
    assert operations(onnx.load(tmp_path / "fused.onnx")) == ["Gelu"]
    np.testing.assert_allclose(run(proto, x), before, atol=4 * 2.0**-23)
