"""Bad input on the command line: a clear error, the right exit code, no traceback, nothing left behind."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from strop import Request, inspect, verify
from strop.core.errors import ModelError, SamplesError
from strop.core.model import Form
from tests.models import onnx_dense

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


@pytest.mark.slow
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


AS_IT_IS = 'strop = 1\n[runtime]\nname = "onnxruntime"\n'


@pytest.fixture
def dense(tmp_path):
    """A folder with an ONNX model and a recipe that runs it as it is."""
    onnx_dense(tmp_path / "dense.onnx")
    (tmp_path / "as_it_is.toml").write_text(AS_IT_IS)
    return tmp_path


def test_a_recipe_and_a_model_in_the_wrong_order(dense):
    (dense / "model.keras").write_bytes(b"PK\x03\x04\xff\xfe")
    done = strop("apply", "model.keras", "as_it_is.toml", folder=dense)
    refused(done, "RecipeError: 'model.keras' is no recipe: it holds no text.")
    assert "  strop apply recipe.toml model.keras" in done.stderr


def test_a_recipe_that_is_a_folder(dense):
    refused(
        strop("apply", ".", "dense.onnx", folder=dense), "RecipeError: '.' is a folder, no recipe."
    )


def test_a_recipe_that_is_not_there(dense):
    refused(
        strop("apply", "absent.toml", "dense.onnx", folder=dense),
        "RecipeError: there is no recipe 'absent.toml'.",
    )


def test_a_recipe_for_what_is_only_shown_for_comparison(dense):
    (dense / "bad.toml").write_text('strop = 1\n[runtime]\nname = "keras_predict"\n')
    done = strop("apply", "bad.toml", "dense.onnx", folder=dense)
    refused(done, "RecipeError: the runtime 'keras_predict' is only measured beside the others")


@pytest.mark.parametrize(
    "command", [("apply", "as_it_is.toml", "dense.onnx"), ("demo",)], ids=["apply", "demo"]
)
@pytest.mark.parametrize("output", ["letter", "letter/inside"])
def test_results_that_would_have_to_lie_in_a_file(dense, command, output):
    (dense / "letter").write_text("dear aunt")
    done = strop(*command, "--output", output, folder=dense)
    refused(done, "OutputError: 'letter' is a file; the results need a folder.")
    assert (dense / "letter").read_text() == "dear aunt"


@pytest.mark.parametrize("command", ["verify", "bench"])
@pytest.mark.parametrize(
    "text", ['{"strop_certificate": 1}', "[]", "null", "{", '{"strop_certificate": 1, "model": 7}']
)
def test_a_certificate_that_is_none(dense, command, text):
    (dense / "best").mkdir()
    (dense / "best" / "certificate.json").write_text(text)
    arguments = ("best",) if command == "verify" else ("best", "dense.onnx")
    refused(
        strop(command, *arguments, folder=dense),
        "ModelError: 'best/certificate.json' can't be read as a certificate.",
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--rounds", "1"), "ParameterError: two rounds at least are needed, not 1"),
        (("--batch", "0"), "ParameterError: the batch size must be from 1 up, not 0"),
        (("--seed", "-1"), "ParameterError: the seed must be from 0 to 4294967295, not -1"),
    ],
)
def test_a_comparison_that_can_not_be(dense, options, told):
    refused(strop("bench", "dense.onnx", "dense.onnx", *options, folder=dense), told)


def test_what_the_operating_system_refuses_is_told_in_a_line(dense):
    """As in a folder that somebody removed meanwhile."""
    command = (
        f"mkdir gone && cd gone && rmdir ../gone && {sys.executable} -m strop bench a.onnx b.onnx"
    )
    done = subprocess.run(
        ["sh", "-c", command], cwd=dense, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    refused(done, "No such file or directory")


@pytest.mark.slow
def test_a_model_whose_answers_are_not_numbers(tmp_path):
    code = (
        "import keras, numpy as np\n"
        "m = keras.Sequential([keras.Input((3,), name='x'), keras.layers.Dense(2)])\n"
        "m.set_weights([np.full((3, 2), np.nan), np.zeros(2)]); m.save('nan.keras')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True)
    done = strop("optimize", "nan.keras", "--effort", "quick", folder=tmp_path)
    refused(done, "is not finite: 100.0% of its values are NaN or infinite")
    assert contents(tmp_path) == ["nan.keras"]


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


def doubling(folder):
    """Save an ONNX model of one operation, which is read without TensorFlow; return its path."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 2]) for n in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "double.onnx")
    return folder / "double.onnx"


def keras_model(folder, code, name="model.keras"):
    """Save the model that `code` builds as ``m``, in a process of its own."""
    program = f"import keras, numpy as np\nfrom keras import layers\n{code}\nm.save({name!r})\n"
    subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("suffix", ["h5", "tflite", "onnx", "pb"])
def test_a_file_cut_short(tmp_path, made, suffix, share):
    form = {"tflite": Form.LITERT, "onnx": Form.ONNX, "pb": Form.GRAPH_DEF}
    if suffix == "h5":
        keras_model(tmp_path, "m = keras.Sequential([keras.Input((3,)), layers.Dense(2)])", "m.h5")
        whole = (tmp_path / "m.h5").read_bytes()
    else:
        whole = made.of_form(form[suffix]).path.read_bytes()
    (tmp_path / f"model.{suffix}").write_bytes(whole[: int(share * len(whole))])
    done = strop("optimize", f"model.{suffix}", folder=tmp_path)
    refused(done, f"model.{suffix}")
    assert "ModelError: " in done.stderr
    assert not (tmp_path / "model-strop").exists()


def test_reading_that_takes_for_ever_is_ended_and_the_file_blamed(digits):
    """As HDF5's library does with some damaged files; here with a limit no reading can keep."""
    with pytest.raises(ModelError, match="gave no answer") as caught:
        inspect(digits.model, request=Request(step_seconds=0.05))
    assert "The file is damaged, or the processor busy" in str(caught.value)


@pytest.mark.slow
def test_a_limit_that_nothing_can_meet_names_the_nearest_miss(tmp_path, digits):
    digits.copied_to(tmp_path)
    options = ("--effort", "quick", "--runtime", "litert", "--min-sqnr", "400", "--max-drop", "0")
    done = strop("optimize", "digits.keras", "--data", "digits.npz", *options, folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "nothing met the limits; the nearest was" in done.stdout
    folder = tmp_path / "digits-strop"
    assert (folder / "report.md").exists()
    assert not (folder / "best").exists()


METRICS = {
    "fails": ("def score(outputs, targets):\n    raise RuntimeError('no idea')\n", "no idea"),
    "nan": ("def score(outputs, targets):\n    return float('nan')\n", "nan"),
    "text": ("def score(outputs, targets):\n    return 'good'\n", "'good'"),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", METRICS)
def test_a_metric_that_fails(tmp_path, digits, wrong):
    code, told = METRICS[wrong]
    digits.copied_to(tmp_path)
    (tmp_path / "mine.py").write_text(code)
    options = ("--data", "digits.npz", "--metric", "mine:score", "--effort", "quick")
    done = strop("optimize", "digits.keras", *options, folder=tmp_path)
    refused(done, "MetricError: ")
    assert "mine:score" in done.stderr
    assert told in done.stderr
    assert contents(tmp_path) == ["digits.keras", "digits.npz", "mine.py"]


DATA = {
    "ends its process": "import os\ndef samples():\n    os._exit(7)\n",
    "aborts": "import os\ndef samples():\n    os.abort()\n",
    "never returns": "import time\ndef samples():\n    time.sleep(600)\n",
}


@pytest.mark.parametrize("wrong", DATA)
def test_a_function_of_samples_that_takes_its_process_down(tmp_path, monkeypatch, wrong):
    (tmp_path / "mine.py").write_text(DATA[wrong])
    monkeypatch.chdir(tmp_path)
    model = doubling(tmp_path)
    limit = 10.0 if wrong == "never returns" else 120.0

    with pytest.raises(SamplesError, match="'mine:samples' can't be read") as caught:
        verify(model, model, "mine:samples", request=Request(step_seconds=limit))

    assert "The function must return" in str(caught.value)


@pytest.mark.slow
def test_a_model_of_texts(tmp_path):
    keras_model(
        tmp_path,
        "v = layers.TextVectorization(output_sequence_length=4, vocabulary=['a', 'b'])\n"
        "m = keras.Sequential([keras.Input((1,), dtype='string', name='text'), v])",
    )
    done = strop("optimize", "model.keras", folder=tmp_path)
    refused(done, "ModelError: ")
    assert "text" in done.stderr
    assert "string" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to make a small disk")
def test_a_full_disk_is_told_and_loses_nothing(tmp_path, digits):
    digits.copied_to(tmp_path)
    small = tmp_path / "small"
    small.mkdir()
    script = (
        f"mount -t tmpfs -o size=300k none {small} && "
        f"{sys.executable} -m strop optimize digits.keras --data digits.npz --effort quick "
        f"--output {small}/out; code=$?; ls {small}/out; exit $code"
    )
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "CUDA_VISIBLE_DEVICES": "-1"},
    )  # fmt: skip
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no small disk can be made here")
    refused(done, "OutputError: ")
    assert "free some room" in done.stderr
