"""`strop graph`: a frozen graph cleaned under the flags that people have in their scripts."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from strop.graph.frozen import read_graph
from strop.graph.quiet import quiet
from tests.cli.test_bad_input import strop

DATA = Path(os.environ.get("STROP_DATA", Path(__file__).parents[3] / "shared" / "data"))
RETRAINED = DATA / "models" / "frozen_graphs" / "mobilenet_v1_0.25_128"


def written_norm(x):
    """Batch normalization as TensorFlow 1's exporters left it."""
    size = int(x.shape[-1])
    random = np.random.default_rng(size)
    mean, gamma, beta = (tf.constant(random.normal(size=size), tf.float32) for _ in range(3))
    step = gamma * tf.math.rsqrt(tf.constant(random.uniform(0.5, 2, size), tf.float32) + 1e-3)
    return x * step + (beta - mean * step)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a classifier as it was frozen after training: an image is decoded, dropout steered by a constant."""
    folder = tmp_path_factory.mktemp("graph")
    random = np.random.default_rng(0)
    with quiet(), tf.Graph().as_default() as graph:
        tf.compat.v1.disable_control_flow_v2()
        file = tf.compat.v1.placeholder(tf.string, [], "DecodeJpeg/contents")
        decoded = tf.cast(tf.io.decode_jpeg(file, channels=3), tf.float32)
        x = tf.reshape(tf.image.resize(decoded, [8, 8])[None], [1, 8, 8, 3], "input")
        for number, channels in enumerate((4, 6)):
            kernel = random.normal(size=(3, 3, int(x.shape[-1]), channels)).astype("float32")
            x = tf.nn.relu(written_norm(tf.nn.conv2d(x, kernel, 1, "SAME")), f"block{number}")
        flat = tf.reshape(x, [-1, 8 * 8 * 6])
        training = tf.constant(False, name="is_training")
        flat = tf.compat.v1.cond(
            training, lambda: tf.nn.dropout(flat, rate=0.5), lambda: tf.identity(flat)
        )
        scores = tf.matmul(flat, random.normal(size=(8 * 8 * 6, 3)).astype("float32") / 20)
        tf.nn.softmax(tf.identity(scores), name="final_result")
        tf.compat.v1.enable_control_flow_v2()
    (folder / "retrained_graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return folder


@pytest.fixture(scope="module")
def cleaned(folder):
    return strop(
        "graph", "--input", "retrained_graph.pb", "--output=optimized_graph.pb", "--input_names=input",
        "--output_names=final_result", "--frozen_graph=True", "--placeholder_type_enum=1",
        folder=folder,
    )  # fmt: skip


def test_a_script_of_optimize_for_inference_runs_on_and_each_pass_is_told(folder, cleaned):
    assert cleaned.returncode == 0, cleaned.stderr
    said = cleaned.stdout
    assert "inputs: input:0; outputs: final_result:0" in said
    for name in (
        "strip",
        "fold_batch_norm",
        "fold_constants",
        "merge_common",
        "arithmetic",
        "fuse",
    ):
        assert f"\n{name} " in said
    assert "optimized_graph.pb: outputs are the same to 5 decimals" in said


def test_what_was_before_the_input_and_what_only_training_needs_is_gone(folder, cleaned):
    before, after = (
        read_graph(folder / name) for name in ("retrained_graph.pb", "optimized_graph.pb")
    )
    operations = {node.op for node in after.node}
    assert not operations & {"DecodeJpeg", "Switch", "Merge", "Rsqrt", "Identity", "Mul"}
    assert len(after.node) < len(before.node) / 3
    assert {"input", "final_result"} <= {node.name for node in after.node}


@pytest.mark.parametrize("engine", ["litert", pytest.param("openvino", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_the_cleaned_graph_goes_on_to_other_engines(folder, cleaned, engine):
    (folder / f"{engine}.toml").write_text(
        f'strop = 1\n[[step]]\npass = "convert.{engine}"\n[runtime]\nname = "{engine}"\n'
    )
    done = strop(
        "apply", f"{engine}.toml", "optimized_graph.pb", "--inputs", "input", "--outputs", "final_result",
        "--output", engine, folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (folder / engine / "certificate.json").exists()


@pytest.mark.slow
def test_a_photo_shows_both_graphs_scores_side_by_side(folder, cleaned):
    pixels = np.random.default_rng(1).integers(0, 256, (20, 16, 3)).astype("uint8")
    Image.fromarray(pixels).save(folder / "photo.jpg")
    (folder / "labels.txt").write_text("daisy\nrose\ntulip\n")

    done = strop(
        "verify", "retrained_graph.pb", "optimized_graph.pb", "--data", "photo.jpg", "--labels", "labels.txt",
        "--inputs", "input", "--outputs", "final_result", "--input_mean=128", "--input_std=128", folder=folder,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    title, *rows, verdict = done.stdout.splitlines()[:5]
    assert title.split() == ["retrained_graph.pb", "optimized_graph.pb"]
    scores = {row.split()[0]: [float(score) for score in row.split()[1:]] for row in rows}
    assert set(scores) == {"daisy", "rose", "tulip"}
    assert all(one == pytest.approx(other, abs=1.1e-5) for one, other in scores.values())
    assert sum(one for one, _ in scores.values()) == pytest.approx(1, abs=2e-5)
    assert verdict.startswith("largest difference ")
    assert verdict.endswith(": the same to 5 decimals")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--output", "retrained_graph.pb"), "is the model itself, which is never written over"),
        (("--output", "."), "is a folder; a file is written"),
        (("--output", "nowhere/out.pb"), "lies in no folder that is there"),
        (("--output", "out.pb", "--passes", "strip,fold_batchnorm"), "simplify.fold_batch_norm"),
    ],
)
def test_what_can_not_be_done_is_said_before_any_work(folder, tmp_path, given, told):
    copied = shutil.copytree(folder, tmp_path / "copy")
    done = strop("graph", "--input", "retrained_graph.pb", *given, folder=copied)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in copied.iterdir()) == sorted(p.name for p in folder.iterdir())


@pytest.mark.slow
def test_inspect_asks_an_engine_node_by_node(tmp_path):
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], "x")
        tf.identity(tf.math.digamma(x, "odd"), "y")
    (tmp_path / "odd.pb").write_bytes(graph.as_graph_def().SerializeToString())

    done = strop("inspect", "odd.pb", "--runtime", "openvino", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "openvino has nothing for 1 of the nodes:\n  Digamma  odd\n" in done.stdout

    done = strop("inspect", "odd.pb", "--runtime", "xla", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "xla has something for every operation" in done.stdout


@pytest.mark.slow
def test_a_saved_model_of_several_signatures_is_cleaned_by_the_one_that_is_named(tmp_path):
    class Two(tf.Module):
        def __init__(self):
            self.weight = tf.Variable(np.eye(3, dtype="float32"))

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
        def once(self, x):
            return {"y": tf.identity(tf.matmul(x, self.weight))}

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, "x")])
        def twice(self, x):
            return {"y": tf.nn.relu(2.0 * tf.matmul(x, self.weight))}

    made = Two()
    tf.saved_model.save(made, str(tmp_path / "saved"), {"once": made.once, "twice": made.twice})

    unnamed = strop("graph", "--input", "saved", "--output", "clean.pb", folder=tmp_path)
    assert unnamed.returncode == 2
    assert "Its signatures: once, twice." in unnamed.stderr
    assert "--signature once" in unnamed.stderr

    named = strop(
        "graph",
        "--input",
        "saved",
        "--output",
        "clean.pb",
        "--signature",
        "twice",
        folder=tmp_path,
    )
    assert named.returncode == 0, named.stderr
    assert "outputs are the same to 5 decimals" in named.stdout
    operations = {node.op for node in read_graph(tmp_path / "clean.pb").node}
    assert operations & {"Relu", "_FusedMatMul"}
    assert not any("Variable" in operation or "Call" in operation for operation in operations)


@pytest.mark.slow
@pytest.mark.skipif(not RETRAINED.exists(), reason=f"there is no {RETRAINED}")
def test_a_retrained_classifier_is_cleaned_verified_and_taken_on_to_other_engines(tmp_path):
    ends = ("--inputs", "input", "--outputs", "final_result")
    done = strop(
        "graph", "--input", RETRAINED / "retrained_graph.pb", "--output", "optimized_graph.pb",
        "--input_names", "input", "--output_names", "final_result", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "outputs are the same to 5 decimals" in done.stdout

    done = strop(
        "verify", RETRAINED / "retrained_graph.pb", "optimized_graph.pb", *ends,
        "--data", RETRAINED / "classify1.jpg", "--labels", RETRAINED / "retrained_labels.txt",
        "--input_mean", "128", "--input_std", "128", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ": the same to 5 decimals" in done.stdout

    done = strop(
        "optimize", "optimized_graph.pb", *ends, "--effort", "quick", "--runtime", "litert", "--runtime", "openvino",
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trials = (tmp_path / "optimized_graph-strop" / "trials.csv").read_text()
    for engine in ("litert", "openvino"):
        assert f"kept,convert.{engine}" in trials or f"best,convert.{engine}" in trials
