"""What commands say and how they end, on a model that takes no TensorFlow."""

import json
import shutil

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.cli.test_bad_input import refused, strop
from tests.models import onnx_dense

AS_IT_IS = 'strop = 1\n[runtime]\nname = "onnxruntime"\n'


def samples(folder, *, right=0.9, count=400, name="data.npz"):
    """Write samples that the model answers right in the given share; return their file's name."""
    random = np.random.default_rng(5)
    x = random.standard_normal((count, 4)).astype("float32")
    answers = (x @ np.random.default_rng(0).standard_normal((4, 3)).astype("float32")).argmax(-1)
    wrong = random.random(count) >= right
    np.savez(folder / name, x=x, y=np.where(wrong, (answers + 1) % 3, answers))
    return name


@pytest.fixture(scope="module")
def made_artifact(tmp_path_factory):
    """A folder with a model, samples, and the artifact that ``apply`` makes of them."""
    folder = tmp_path_factory.mktemp("commands")
    onnx_dense(folder / "dense.onnx")
    (folder / "as_it_is.toml").write_text(AS_IT_IS)
    samples(folder)
    done = strop(
        "apply", "as_it_is.toml", "dense.onnx", "--data", "data.npz", "--output", "best",
        "--max-drop", "0.05", "--metric", "accuracy", "--batch", "2", folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(made_artifact, tmp_path):
    return shutil.copytree(made_artifact, tmp_path / "copy")


def test_apply_takes_the_limits_that_its_passes_ask_for(made_artifact):
    certificate = json.loads((made_artifact / "best" / "certificate.json").read_text())
    assert certificate["goal"]["max_drop"] == 0.05
    assert certificate["goal"]["metric"] == "accuracy"
    assert certificate["goal"]["batch_sizes"] == [2]


def test_an_artifact_alone_is_judged_on_samples_by_its_certificate(folder):
    done = strop("verify", "best", "--data", "data.npz", folder=folder)
    assert done.returncode == 0, done.stderr
    fidelity = json.loads((folder / "best" / "certificate.json").read_text())["fidelity"]
    metric = fidelity["metric"]["value"]
    assert (
        f"ok   accuracy on {fidelity['samples']} samples: {metric:.4g}, where the original had {metric:.4g}: "
        "a drop of 0, limit 0.05\n"
    ) in done.stdout
    assert "within the limits" in done.stdout


def test_an_artifact_is_held_to_what_its_certificate_tells_of_the_same_samples(folder):
    """A limit was held on more samples than those that the certificate tells of."""
    file = folder / "best" / "certificate.json"
    certificate = json.loads(file.read_text())
    fidelity = certificate["fidelity"]
    # Both figures are rounded, so that their difference need not be what is told.
    fidelity["baseline_metric"]["value"] = fidelity["metric"]["value"] + 0.07  # the limit is 0.05
    fidelity["drop"]["value"] = np.nextafter(0.07, 0)
    file.write_text(json.dumps(certificate))

    done = strop("verify", "best", "--data", "data.npz", folder=folder)
    asked = strop("verify", "best", "--data", "data.npz", "--max-drop", "0.05", folder=folder)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "limit 0.07" in done.stdout
    assert asked.returncode == 1, asked.stdout


def test_an_artifact_that_answers_other_samples_worse_fails(folder):
    data = samples(folder, right=0.6, name="worse.npz")
    done = strop("verify", "best", "--data", data, folder=folder)
    assert done.returncode == 1, done.stderr
    assert "NOT  accuracy on " in done.stdout


def test_an_artifacts_own_limit_may_be_overruled(folder):
    data = samples(folder, right=0.6, name="worse.npz")
    done = strop("verify", "best", "--data", data, "--max-drop", "0.6", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--max-drop", "0.1"), "ParameterError: an artifact alone has a drop only on samples"),
        (("--metric", "accuracy"), "ParameterError: an artifact alone has a drop only on samples"),
        (("--data", "plain.npy"), "SamplesError: the certificate has no answers of the original"),
        (("--data", "data.npz", "--metric", "top_k(k=2)"), "SamplesError: the certificate has the original's accuracy"),
    ],
)  # fmt: skip
def test_what_only_the_original_can_tell_is_not_passed_over(folder, options, told):
    np.save(folder / "plain.npy", np.random.default_rng(0).random((40, 4), np.float32))
    done = strop("verify", "best", *options, folder=folder)
    refused(done, told)


@pytest.mark.parametrize("tolerance", [1e-12, 1.0])
def test_reference_outputs_are_held_to_a_tolerance_that_is_given(folder, tolerance):
    with np.load(folder / "best" / "reference.npz") as stored:
        arrays = {**stored, "output_0": stored["output_0"] + np.float32(1e-6)}
    np.savez(folder / "best" / "reference.npz", **arrays)
    certificate = json.loads((folder / "best" / "certificate.json").read_text())
    from strop.core import digest

    certificate["reference"]["digest"] = digest.of_path(folder / "best" / "reference.npz")
    (folder / "best" / "certificate.json").write_text(json.dumps(certificate))
    done = strop("verify", "best", "--tolerance", tolerance, folder=folder)
    assert done.returncode == (0 if tolerance == 1.0 else 1), done.stdout + done.stderr


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_reference_outputs_that_are_not_the_recorded_ones_are_noticed(folder, damage):
    file = folder / "best" / "reference.npz"
    if damage == "changed":
        with np.load(file) as stored:
            np.savez(file, **{name: array * 2 for name, array in stored.items()})
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    else:
        file.unlink()
    done = strop("verify", "best", folder=folder)
    assert "Traceback" not in done.stderr
    assert done.returncode == 1, done.stderr
    assert "NOT  digest of reference.npz" in done.stdout


@pytest.mark.parametrize("option", ["--data", "--scale", "--preprocess", "--seed"])
def test_inspect_offers_nothing_about_samples(made_artifact, option):
    refused(strop("inspect", "dense.onnx", option, "1", folder=made_artifact), "No such option")


def test_a_word_to_allow_that_means_nothing_is_refused(made_artifact):
    done = strop("inspect", "dense.onnx", "--allow", "lambada", folder=made_artifact)
    refused(done, "there is no word to allow called 'lambada'. Did you mean 'lambda'?")


@pytest.mark.slow
def test_models_whose_inputs_are_named_differently_are_timed_side_by_side(folder):
    onnx_dense(folder / "other.onnx", given="features")
    done = strop("bench", "dense.onnx", "other.onnx", "--rounds", "3", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "other.onnx" in done.stdout


def test_models_that_take_other_shapes_are_not_timed_side_by_side(folder):
    onnx_dense(folder / "other.onnx", given="features", width=5)
    done = strop("bench", "dense.onnx", "other.onnx", "--rounds", "3", folder=folder)
    refused(done, "other.onnx: the input 'features' has shape", code=3)


def test_a_model_alone_is_timed(folder):
    done = strop("bench", "dense.onnx", "--rounds", "3", folder=folder)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "dense.onnx" in line]
    assert float(line.split(" ms")[0]) > 0


def test_what_a_recipe_makes_is_held_to_the_limits(folder):
    (folder / "half.toml").write_text(
        'strop = 1\n[[step]]\npass = "quantize.onnx_float16"\n[runtime]\nname = "onnxruntime"\n'
    )
    onnx_dense(folder / "large.onnx", scale=1e6)  # beyond what float16 holds
    done = strop("apply", "half.toml", "large.onnx", "--data", "data.npz", folder=folder)
    assert done.returncode == 1, done.stderr
    assert (
        "more than the limit 0.01; what was made lies in 'large-quantize.onnx_float16'"
        in done.stderr
    )
    assert (folder / "large-quantize.onnx_float16" / "certificate.json").exists()


def test_the_demonstration_leaves_files_of_others_alone(tmp_path):
    (tmp_path / "digits.npz").write_text("mine")
    refused(strop("demo", "--output", ".", folder=tmp_path), "stays")
    assert (tmp_path / "digits.npz").read_text() == "mine"


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        (("--max-drop", "0.01"), 1),
        (("--max-drop", "1"), 0),
        (("--tolerance", "1e-6"), 1),
        (("--tolerance", "1.5"), 0),
    ],
)
def test_one_model_is_held_to_another(folder, limit, code):
    onnx_dense(folder / "other.onnx", seed=1)
    done = strop("verify", "dense.onnx", "other.onnx", "--data", "data.npz", *limit, folder=folder)
    assert done.returncode == code, done.stderr
    assert done.stdout.endswith("NOT within the limits\n") == (code == 1)
    assert "label: largest difference" in done.stdout
    assert "accuracy: 0." in done.stdout


def test_a_few_samples_show_their_scores_where_labels_are_given(folder):
    (folder / "labels.txt").write_text("yes\nno\nperhaps\n\n")
    done = strop(
        "verify", "dense.onnx", "dense.onnx", "--data", "data.npz", "--labels", "labels.txt", folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "sample 1, label:\n" in done.stdout
    assert "sample 5, label:\n" in done.stdout
    assert done.stdout.count("perhaps") == 5
    assert "on 400 samples:\n" in done.stdout


def test_scores_in_codes_are_shown_highest_first(folder):
    """Codes of 8 bits have no negative: 0 would stand before 200."""
    ends = [
        onnx.helper.make_tensor_value_info(name, kind, ["N", 3])
        for name, kind in (("x", onnx.TensorProto.FLOAT), ("codes", onnx.TensorProto.UINT8))
    ]
    cast = onnx.helper.make_node("Cast", ["x"], ["codes"], to=onnx.TensorProto.UINT8)
    graph = onnx.helper.make_graph([cast], "codes", ends[:1], ends[1:])
    opset = onnx.helper.make_opsetid("", 17)
    made = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)
    onnx.save(made, folder / "codes.onnx")
    np.save(folder / "one.npy", np.array([[0, 200, 7]], np.float32))

    done = strop("verify", "codes.onnx", "codes.onnx", "--data", "one.npy", folder=folder)

    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:4]]
    assert rows == [
        ["class", "1", "200.00000", "200.00000"],
        ["class", "2", "7.00000", "7.00000"],
        ["class", "0", "0.00000", "0.00000"],
    ]


def test_labels_of_a_lone_artifact_are_not_passed_over(folder):
    (folder / "labels.txt").write_text("yes\nno\nperhaps\n")
    done = strop("verify", "best", "--data", "data.npz", "--labels", "labels.txt", folder=folder)
    refused(done, "ParameterError: labels are for the scores of two models side by side")


def test_one_image_can_not_be_split(folder):
    Image.new("RGB", (4, 4)).save(folder / "photo.png")
    done = strop("optimize", "dense.onnx", "--data", "photo.png", folder=folder)
    refused(done, "SamplesError: 'photo.png' is one image.")


def test_an_engine_that_there_is_not_is_refused_before_any_work(folder):
    done = strop("inspect", "dense.onnx", "--runtime", "lite", folder=folder)
    refused(done, "UnknownNameError: there is no engine called 'lite'. Did you mean 'litert'?")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (
            "yes\nno\n",
            "there are 2 labels, and no output scores so many classes: 'label' scores 3.",
        ),
        ("", "the labels 'labels.txt' name no class."),
        (None, "the labels 'labels.txt' can't be read: "),
    ],
)
def test_labels_of_another_model_are_refused(folder, labels, told):
    if labels is not None:
        (folder / "labels.txt").write_text(labels)
    done = strop(
        "verify", "dense.onnx", "dense.onnx", "--data", "data.npz", "--labels", "labels.txt", folder=folder,
    )  # fmt: skip
    refused(done, f"ParameterError: {told}")


def test_inspect_tells_what_a_model_is_and_who_can_run_it(made_artifact):
    done = strop("inspect", "dense.onnx", folder=made_artifact)
    assert done.returncode == 0, done.stderr
    assert "MatMul" in done.stdout
    assert "x: float32[?,4]" in done.stdout
    assert "12 parameters, 12 multiply-accumulates" in done.stdout
    assert "ONNX Runtime   as it is" in done.stdout
    assert "TensorFlow     no conversion leads there" in done.stdout


def test_doctor_tells_engines_and_processor(made_artifact):
    done = strop("doctor", folder=made_artifact)
    assert done.returncode == 0, done.stderr
    assert "present  LiteRT" in done.stdout
    assert "instructions that matter" in done.stdout


@pytest.mark.slow
def test_an_onnx_file_is_optimized_without_tensorflow(folder):
    done = strop(
        "optimize", "dense.onnx", "--data", "data.npz", "--effort", "quick", "--runtime", "onnxruntime",
        folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = folder / "dense-strop"
    assert {"best", "best.toml", "report.html", "report.md", "trials.csv", "study"} <= {
        path.name for path in out.iterdir()
    }
    again = strop("verify", "dense-strop/best", folder=folder)
    assert again.returncode == 0, again.stdout + again.stderr
