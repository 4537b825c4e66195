"""Bad input on the command line: a clear error, the right exit code, no traceback, nothing left behind."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

SOURCE = Path(__file__).parents[2] / "src"


def strop(*arguments, folder):
    """Run the command as a user would, from `folder`; its own log folder shows what workers leave there."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    search = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "strop", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": search, "TMPDIR": str(scratch), "CUDA_VISIBLE_DEVICES": "-1"},
    )  # fmt: skip


def refused(done, first_line, *, code=2):
    """Hold a run to its exit code and its words."""
    assert "Traceback" not in done.stderr + done.stdout
    assert done.returncode == code, done.stderr
    lines = done.stderr.splitlines()
    assert any(first_line in line for line in lines), done.stderr


def contents(folder):
    return sorted(p.name for p in folder.iterdir() if p.name != "scratch")


def test_a_file_that_is_not_there(tmp_path):
    done = strop("optimize", "absent.keras", folder=tmp_path)
    refused(done, "ModelError: there is no 'absent.keras'")
    assert contents(tmp_path) == []


@pytest.mark.parametrize("suffix", ["keras", "h5", "tflite", "onnx", "pb", "xml"])
def test_an_empty_file(tmp_path, suffix):
    (tmp_path / f"model.{suffix}").write_bytes(b"")
    done = strop("optimize", f"model.{suffix}", folder=tmp_path)
    refused(done, "ModelError: ")
    assert "empty" in done.stderr
    assert contents(tmp_path) == [f"model.{suffix}"]


@pytest.mark.parametrize("suffix", ["keras", "h5", "tflite", "onnx", "pb", "xml"])
def test_a_file_that_is_not_what_its_name_says(tmp_path, suffix):
    (tmp_path / f"model.{suffix}").write_bytes(b"this is a letter to my aunt. " * 40)
    done = strop("optimize", f"model.{suffix}", folder=tmp_path)
    refused(done, f"model.{suffix}")
    assert "ModelError: " in done.stderr
    assert (tmp_path / f"model.{suffix}").read_bytes() == b"this is a letter to my aunt. " * 40


@pytest.mark.slow
def test_a_truncated_keras_file(tmp_path, digits):
    whole = digits.model.read_bytes()
    (tmp_path / "model.keras").write_bytes(whole[: len(whole) // 2])
    refused(strop("optimize", "model.keras", folder=tmp_path), "ModelError: ")


def test_a_zip_that_is_no_keras_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("letter.txt", "dear aunt")
    refused(strop("optimize", "model.keras", folder=tmp_path), "ModelError: ")


SAMPLES = {
    "shape": ({"x": np.zeros((9, 7, 7, 1), "float32"), "y": np.zeros(9, int)}, "has shape (9, 7, 7, 1)"),
    "dtype": ({"x": np.zeros((9, 8, 8, 1), complex)}, "has dtype complex128"),
    "names": ({"picture": np.zeros((9, 8, 8, 1), "float32")}, "holds arrays named picture"),
    "nan": ({"x": np.full((9, 8, 8, 1), np.nan, "float32")}, "NaN or infinite"),
    "length": ({"x": np.zeros((9, 8, 8, 1), "float32"), "y": np.zeros(8, int)}, "8 targets"),
    "text": ({"x": np.full((9, 8, 8, 1), "a")}, "not numbers"),
    "none": ({"x": np.zeros((0, 8, 8, 1), "float32")}, "is empty"),
    "half": ({"x_train": np.zeros((9, 8, 8, 1), "float32")}, "x_test is missing"),
}  # fmt: skip


# Each reads a Keras model in a process of its own, which costs an import of TensorFlow.
@pytest.mark.parametrize(
    "wrong",
    [w if w in ("shape", "nan") else pytest.param(w, marks=pytest.mark.slow) for w in SAMPLES],
)
def test_samples_that_do_not_fit(tmp_path, digits, wrong):
    digits.copied_to(tmp_path)
    arrays, told = SAMPLES[wrong]
    np.savez(tmp_path / "bad.npz", **arrays)
    done = strop("optimize", "digits.keras", "--data", "bad.npz", folder=tmp_path)
    refused(done, told)
    assert "SamplesError: " in done.stderr


@pytest.mark.slow
def test_samples_that_hold_pickles_are_never_read(tmp_path, digits):
    digits.copied_to(tmp_path)
    np.savez(tmp_path / "bad.npz", x=np.array([{"a": 1}], dtype=object))
    done = strop("optimize", "digits.keras", "--data", "bad.npz", folder=tmp_path)
    refused(done, "SamplesError: ")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--max-drop", "-1"), "max_drop must be a number from 0 up, not -1.0"),
        (("--max-drop", "nan"), "max_drop must be a number from 0 up, not nan"),
        (("--budget", "soon"), "'soon' is no time; write 90s, 5m or 1h"),
        (("--batch", "0"), "batch sizes must be whole numbers from 1 up"),
        (("--batch", "one"), "'one' is no batch size; write 1 or 1,32"),
        (("--confidence", "2"), "confidence must lie in 0.5..1, not 2.0"),
        (("--effort", "heroic"), "'heroic' is not one of"),
        (("--minimize", "beauty"), "'beauty' is not one of"),
        (("--scale", "1/0"), "'1/0' is no factor"),
        (("--shape", "pixels"), "'pixels' is no shape"),
        (("--runtime", "openvin"), "Did you mean 'openvino'?"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_written(
    tmp_path, digits, options, told
):
    digits.copied_to(tmp_path)
    done = strop("optimize", "digits.keras", *options, folder=tmp_path)
    refused(done, told)
    assert contents(tmp_path) == ["digits.keras", "digits.npz"]


def test_an_output_folder_that_holds_something_else_is_left_alone(tmp_path, digits):
    digits.copied_to(tmp_path)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("once upon a time")
    done = strop("optimize", "digits.keras", "--output", "thesis", folder=tmp_path)
    refused(done, "OutputError: the folder 'thesis' holds something else")
    assert contents(tmp_path / "thesis") == ["chapter1.tex"]


def test_an_output_that_is_a_file_is_left_alone(tmp_path, digits):
    digits.copied_to(tmp_path)
    (tmp_path / "results").write_text("precious")
    done = strop("optimize", "digits.keras", "--output", "results", folder=tmp_path)
    refused(done, "OutputError: 'results' is a file; the results need a folder.")
    assert (tmp_path / "results").read_text() == "precious"


@pytest.mark.slow
def test_a_metric_that_is_not_there(tmp_path, digits):
    digits.copied_to(tmp_path)
    done = strop(
        "optimize", "digits.keras", "--data", "digits.npz", "--metric", "acuracy", folder=tmp_path
    )
    refused(done, "Did you mean 'accuracy'?")


def test_a_command_that_is_not_there(tmp_path):
    refused(strop("optimise", "m.keras", folder=tmp_path), "Did you mean 'optimize'?")


def test_a_recipe_with_mistakes_tells_all_of_them(tmp_path, digits):
    digits.copied_to(tmp_path)
    (tmp_path / "bad.toml").write_text(
        'strop = 1\n[[step]]\npass = "convert.litert"\nbatch = -1\n[runtime]\nname = "onnxruntime"\n'
    )
    done = strop("apply", "bad.toml", "digits.keras", folder=tmp_path)
    refused(done, "RecipeError: ")
    assert "takes a graph_def model" in done.stderr
    assert "batch must be at least" in done.stderr
    assert "the runtime 'onnxruntime' runs onnx" in done.stderr
    assert contents(tmp_path) == ["bad.toml", "digits.keras", "digits.npz"]


@pytest.mark.slow
def test_a_model_whose_answers_are_not_numbers(tmp_path):
    code = (
        "import keras, numpy as np\n"
        "m = keras.Sequential([keras.Input((3,), name='x'), keras.layers.Dense(2)])\n"
        "m.set_weights([np.full((3, 2), np.nan), np.zeros(2)]); m.save('nan.keras')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True)
    done = strop("optimize", "nan.keras", "--effort", "quick", folder=tmp_path)
    refused(done, "is not finite: 100.0% of its values are NaN or infinite", code=3)


@pytest.mark.slow
def test_a_lambda_layer_is_refused_and_the_way_to_allow_it_named(tmp_path):
    code = (
        "import keras\n"
        "m = keras.Sequential([keras.Input((3,), name='x'), keras.layers.Lambda(lambda t: t * 2)])\n"
        "m.save('lambda.keras')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True)
    done = strop("optimize", "lambda.keras", folder=tmp_path)
    refused(done, "UnsafeModelError: ")
    assert "--allow lambda" in done.stderr
