"""Two models side by side: whose outputs are held against whose."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from strop.core.model import Form, Model
from strop.core.samples import Samples
from strop.core.signature import Signature, TensorSpec
from strop.engine.verification import Opened, compare_answers, matched_by_place


def two_headed(path, *names):
    """An ONNX model with an output a name: `left` gives the input back, `right` turns its sign; any other does as its place."""
    operations = {"left": "Identity", "right": "Neg"}
    by_place = ("Identity", "Neg")
    nodes = [
        helper.make_node(operations.get(name, by_place[place]), ["x"], [name])
        for place, name in enumerate(names)
    ]
    x, *heads = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2])
        for name in ("x", *names)
    )
    graph = helper.make_graph(nodes, "heads", [x], heads)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, path)
    specs = tuple(TensorSpec(name, (None, 2), "float32") for name in names)
    signature = Signature((TensorSpec("x", (None, 2), "float32"),), specs)
    return Opened(Model.at(Form.ONNX, path, signature), "onnxruntime", {})


@pytest.fixture
def samples(tmp_path):
    x = np.random.default_rng(0).standard_normal((16, 2)).astype("float32")
    Samples({"x": x}).save(tmp_path / "samples")
    return str(tmp_path / "samples")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("left", "right"), []),
        (("right", "left"), []),  # as converters shuffle them
        (("a", "b"), ["'left' with 'a', 'right' with 'b'"]),
    ],
)
def test_outputs_are_matched_by_name_and_else_by_place_which_is_told(
    tmp_path, samples, names, told
):
    original = two_headed(tmp_path / "original.onnx", "left", "right")
    candidate = two_headed(tmp_path / "candidate.onnx", *names)

    found = compare_answers(original, candidate, samples, None, 0.95, 0).fidelity

    assert [output.name for output in found.outputs] == ["left", "right"]
    assert found.max_abs == 0
    checks = matched_by_place(original.model.signature, candidate.model.signature)
    assert [check.found for check in checks] == told
    assert all(check.holds is None for check in checks)


def test_the_first_samples_scores_are_given_side_by_side(tmp_path, samples):
    original = two_headed(tmp_path / "original.onnx", "left", "right")
    candidate = two_headed(tmp_path / "candidate.onnx", "right", "left")

    found = compare_answers(original, candidate, samples, None, 0.95, 0).scores

    assert [(one.sample, one.output) for one in found[:3]] == [
        (0, "left"),
        (0, "right"),
        (1, "left"),
    ]
    assert len(found) == 10  # of five samples
    x = Samples.load(Path(samples)).inputs["x"]
    np.testing.assert_array_equal(found[2].before, x[1])
    np.testing.assert_array_equal(found[2].after, x[1])
    assert found[2].max_abs == 0


def test_how_far_a_long_comparison_is_is_told(tmp_path, samples, monkeypatch):
    monkeypatch.setattr("strop.engine.verification._MOMENT_SECONDS", -1.0)  # as if it took long
    pair = [two_headed(tmp_path / f"{n}.onnx", "left", "right") for n in range(2)]
    told = []
    compare_answers(
        *pair, samples, None, 0.95, 0, progress=lambda share, note: told.append((share, note))
    )
    assert [share for share, _ in told] == [0.5]  # both models are asked once
    assert told[0][1].startswith("the original answers, about 0 s left")


def test_nothing_is_told_of_a_comparison_that_is_over_at_once(tmp_path, samples):
    pair = [two_headed(tmp_path / f"{n}.onnx", "left", "right") for n in range(2)]
    told = []
    compare_answers(*pair, samples, None, 0.95, 0, progress=lambda *heard: told.append(heard))
    assert told == []
