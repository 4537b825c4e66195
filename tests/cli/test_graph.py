"""`strop graph`: a frozen graph cleaned under the flags that people have in their scripts."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from strop.graph.frozen import read_graph
from strop.graph.quiet import quiet
from tests.cli.test_bad_input import strop


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


def test_the_cleaned_graph_goes_on_to_other_engines(folder, cleaned):
    (folder / "on.toml").write_text(
        'strop = 1\n[[step]]\npass = "convert.litert"\nbatch = 1\n[runtime]\nname = "litert"\n'
    )
    done = strop(
        "apply", "on.toml", "optimized_graph.pb", "--inputs", "input", "--outputs", "final_result",
        "--output", "on", folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (folder / "on" / "certificate.json").exists()


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
