"""`strop quantize`: integers in the form that the output's ending asks for, taught or not."""

from dataclasses import replace

import keras
import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from strop.api.quantizing import AWARE, quantize
from strop.cli.quantize import command
from strop.cli.technique import value_of
from strop.core.errors import (
    ConversionError,
    ModelError,
    OutputError,
    ParameterError,
    SamplesError,
)
from strop.engine.machine import this_machine
from strop.search.events import StageStarted
from tests.models import dense_case
from tests.taught import Flatbuffer


def run(case, *arguments):
    return CliRunner().invoke(
        command, [str(case.model), "--data", str(case.data), *map(str, arguments)], catch_exceptions=False
    )  # fmt: skip


def test_a_model_that_is_taught_computes_in_integers(digits, tmp_path):
    file = tmp_path / "taught.tflite"

    done = run(
        digits, "--aware", "--epochs", 1, "--weight-bits", 4, "--max-drop", 0.03, "--output", file
    )

    assert done.exit_code == 0, done.output
    assert "accuracy drops by" in done.output
    made = Flatbuffer(_At(file))
    assert made.in_float == ["QUANTIZE", "DEQUANTIZE"]
    for kernel in made.kernels().values():
        assert np.abs(kernel).max() == 7


class _At:
    """A file, as `Flatbuffer` wants it."""

    def __init__(self, path):
        self.path = path


@pytest.mark.slow
@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("ending", [".tflite", ".xml", ".onnx"])
def test_each_form_is_written_and_answers_nearly_as_well(digits, ending, aware, tmp_path):
    output = tmp_path / f"made{ending}"
    settings = {"epochs": 1} if aware else {"calibration_samples": 64}

    found = quantize(digits.model, digits.data, output, aware=aware, **settings)

    assert found.path == output
    assert output.exists()
    assert (tmp_path / "made.bin").exists() == (ending == ".xml")
    assert found.fidelity.drop.value <= 0.03
    assert found.after["size"].value < found.before["size"].value / 2.5
    assert found.facts["left_in_float"] == {}


@pytest.mark.slow
def test_a_model_in_memory_is_quantized_and_stays_as_it_is(digits, tmp_path):
    model = keras.models.load_model(digits.model)
    before = [weight.copy() for weight in model.get_weights()]

    quantize(model, digits.data, tmp_path / "made.tflite", aware=True, epochs=0)

    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


@pytest.mark.parametrize(
    ("instructions", "said"), [(("AVX2",), True), (("AVX2", "AVX-512 VNNI"), False)]
)
def test_weights_have_seven_bits_where_sums_of_eight_may_saturate(
    digits, tmp_path, monkeypatch, instructions, said
):
    here = replace(this_machine(), instructions=instructions)
    monkeypatch.setattr("strop.api.quantizing.this_machine", lambda: here)
    heard = []

    quantize(digits.model, digits.data, tmp_path / "made.onnx", listen=heard.append)

    assert any("weights have 7 bits" in str(event) for event in heard) == said
    held = onnx.load(tmp_path / "made.onnx").graph.initializer
    codes = [
        onnx.numpy_helper.to_array(tensor).astype(int) for tensor in held if tensor.data_type == 3
    ]
    assert (max(np.abs(kernel).max() for kernel in codes if kernel.ndim > 1) <= 64) == said


def test_what_an_engine_has_no_operation_for_is_told_before_the_model_is_taught(tmp_path):
    volume = keras.Input((4, 4, 4, 2), name="x")
    x = keras.layers.MaxPooling3D()(keras.layers.Conv3D(2, 3, padding="same")(volume))
    model = keras.Model(volume, keras.layers.Dense(2, name="y")(keras.layers.Flatten()(x)))
    x = np.random.default_rng(0).normal(size=(64, 4, 4, 4, 2)).astype("float32")
    heard = []
    with pytest.raises(ConversionError, match="MaxPool3D"):
        quantize(model, x, tmp_path / "made.tflite", aware=True, listen=heard.append)
    assert not any(isinstance(event, StageStarted) and event.name == AWARE for event in heard)


@pytest.mark.slow
def test_a_recurrent_model_gets_into_litert_written_out(tmp_path):
    keras.utils.set_random_seed(0)
    words = keras.Input((6, 4), name="x")
    hidden = keras.layers.LSTM(4, name="recurrent")(keras.layers.Conv1D(4, 1)(words))
    model = keras.Model(words, keras.layers.Dense(2, name="y")(hidden))
    x = np.random.default_rng(0).normal(size=(64, 6, 4)).astype("float32")
    found = quantize(model, x, tmp_path / "made.tflite", aware=True, epochs=1)
    assert list(found.facts["left_in_float"]) == ["recurrent"]


def test_what_makes_no_sense_is_refused_before_any_work(digits, tmp_path):
    with pytest.raises(OutputError) as refused:
        quantize(digits.model, digits.data, tmp_path / "made.pb")
    assert str(refused.value) == (
        "'.pb' tells no form that has integers.\n"
        "An output ends in .tflite, .xml, .onnx.\n"
        "  --output quantized.tflite"
    )
    with pytest.raises(ParameterError) as refused:
        quantize(digits.model, digits.data, weight_bits=4)
    assert str(refused.value) == (
        "weight_bits is for models that are taught to compute in integers.\n"
        "  strop quantize MODEL --data SAMPLES --aware --weight-bits 4"
    )
    with pytest.raises(ParameterError, match=r"--aware --augment flip,shift$"):
        quantize(digits.model, digits.data, augment=("flip", "shift"))
    with pytest.raises(ParameterError, match="only LiteRT has integer kernels of that width"):
        quantize(digits.model, digits.data, tmp_path / "m.xml", aware=True, activation_bits=16)
    with pytest.raises(ParameterError, match=r"'quantize\.aware' has no parameter 'preset'"):
        quantize(digits.model, digits.data, tmp_path / "m.xml", aware=True, preset="mixed")
    with pytest.raises(ParameterError, match="weight_bits must be one of 4, 7, 8, not 3"):
        quantize(digits.model, digits.data, tmp_path / "m.xml", aware=True, weight_bits=3)
    with pytest.raises(SamplesError, match="no samples to find the ranges of integers with"):
        quantize(digits.model, output=tmp_path / "made.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_is_no_keras_model_is_refused(digits, tmp_path):
    with pytest.raises(ModelError, match="of the form onnx, and only Keras models"):
        quantize(
            dense_case(tmp_path),
            tmp_path / "dense.npz",
            tmp_path / "m.tflite",
            aware=True,
        )
    assert not (tmp_path / "m.tflite").exists()


def test_each_option_says_what_it_is_of():
    told = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert "--weight-bits [4|7|8] (--aware, .onnx) width of a weight's code" in told
    assert "--activation-bits [8|16] (--aware, .tflite)" in told
    assert "--preset [mixed|performance] (.xml)" in told
    assert "--calibration-samples INTEGER (.tflite, .xml, .onnx)" in told


@pytest.mark.parametrize(("given", "names"), [("flip, shift", ("flip", "shift")), ("", ())])
def test_names_are_given_with_commas_between_them(given, names):
    assert value_of(given, ()) == names
