"""What workers are asked: the original's own answers, and what it differs from itself by."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from strop.core.errors import ConversionError, MetricError, ModelError
from strop.core.evaluation import Goal
from strop.core.model import Form, Model
from strop.core.recipe import Step
from strop.core.samples import Samples, Splits
from strop.core.signature import Signature, TensorSpec
from strop.engine.context import Bench, Floor
from strop.engine.tasks import answer_all, apply_pass, check_answers

NOISE = 0.1
OFF = 10.0


def onnx_model(folder, *, noise):
    """A model that gives its input back, with noise drawn anew at each call."""
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["normal"], seed=1.0),
        helper.make_node("Mul", ["normal", "size"], ["noise"]),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    size = helper.make_tensor("size", TensorProto.FLOAT, [], [noise])
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 1]) for n in ("x", "y"))
    made = helper.make_model(
        helper.make_graph(nodes, "noisy", [x], [y], [size]),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    onnx.save(made, folder / "model.onnx")
    spec = (TensorSpec("x", (None, 1), "float32"),), (TensorSpec("y", (None, 1), "float32"),)
    return Model.at(Form.ONNX, folder / "model.onnx", Signature(*spec))


def splits_in(folder, *, targets):
    """Small inputs beside the noise; targets far from what the model answers."""
    rng = np.random.default_rng(0)

    def part(count):
        inputs = rng.uniform(-NOISE / 10, NOISE / 10, (count, 1)).astype("float32")
        return Samples({"x": inputs}, {"y": inputs + np.float32(OFF)} if targets else {})

    Splits(part(0), part(64), part(256), part(256)).save(folder)
    return str(folder)


def floor_of(folder, *, noise=NOISE, targets=True, metric=None):
    splits = splits_in(folder / "splits", targets=targets)
    model = onnx_model(folder, noise=noise)
    return answer_all(model, "onnxruntime", {}, splits, str(folder / "answers"), metric)


def test_a_model_that_repeats_itself_has_no_floor(tmp_path):
    assert floor_of(tmp_path, noise=0.0) == Floor(0.0, 0.0)


def test_the_floor_of_the_drop_is_in_the_studys_own_metric(tmp_path):
    floor = floor_of(tmp_path)

    # The answers differ by more than their size, and the mean of 256 errors near 10 hardly: its standard
    # deviation between two calls is 0.1 * sqrt(2 / 256), of 10 less than a thousandth, of which ten.
    assert floor.relative_error > 1
    assert 0 < floor.drop < 10 * NOISE * np.sqrt(2 / 256) / OFF


def test_without_targets_the_floor_of_the_drop_is_the_relative_error(tmp_path):
    floor = floor_of(tmp_path, targets=False)
    assert floor.drop > 1
    assert floor.relative_error >= floor.drop  # of eight samples at a time, the worst


def test_conversions_are_held_to_the_relative_error_and_not_to_the_drop(tmp_path):
    floor_of(tmp_path)
    # Noise that the original did not have: what a wrong conversion looks like.
    (tmp_path / "other").mkdir()
    other = onnx_model(tmp_path / "other", noise=3 * NOISE)
    bench = Bench(tmp_path / "splits", tmp_path / "answers", Goal())

    with pytest.raises(ConversionError, match="changed the answers"):
        check_answers(other, replace(bench, floor=Floor(drop=1e6, relative_error=0.0)))
    check_answers(other, replace(bench, floor=Floor(drop=0.0, relative_error=1e6)))


def test_a_model_whose_own_answers_are_not_finite_is_bad_input(tmp_path):
    with pytest.raises(ModelError, match="own output 'y' is not finite"):
        floor_of(tmp_path, noise=np.inf)


def test_a_metric_that_fails_is_told_before_any_trial(tmp_path):
    with pytest.raises(MetricError, match="both classes"):
        floor_of(tmp_path, noise=0.0, metric="auc")


def test_what_was_taught_in_between_is_converted_and_held_to_itself(made, tmp_path):
    """Its answers are not the original's any more, and a conversion of it changes nothing about that."""
    spoilt = made.model((Step("prune.magnitude", {"sparsity": 0.9, "epochs": 0}),))
    with pytest.raises(ConversionError, match="changed the answers"):
        check_answers(spoilt, made.bench)
    converted = apply_pass(
        Step("convert.graph_def"), spoilt, made.bench, str(tmp_path), None, {},
        original=made.source, progress=lambda share, note: None,
    )  # fmt: skip
    assert converted.form is Form.GRAPH_DEF
    with pytest.raises(ConversionError, match="changed the answers"):
        check_answers(made.source, made.bench, before=spoilt)
