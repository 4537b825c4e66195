"""`strop tensorboard`: each graph is a run, and TensorBoard's own endpoints tell of both."""

import json
import re
import subprocess
import sys
import urllib.request

import pytest
import tensorflow as tf

from strop.graph.quiet import quiet
from tests.cli.test_bad_input import strop
from tests.models import onnx_dense


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two graphs, the second without what the first only hands on; and their runs."""
    folder = tmp_path_factory.mktemp("tensorboard")
    for name, repeats in (("before", 3), ("after", 0)):
        with quiet(), tf.Graph().as_default() as graph:
            x = tf.compat.v1.placeholder(tf.float32, [None, 4], "x")
            for _ in range(repeats):
                x = tf.identity(x)
            tf.nn.relu(x, "y")
        (folder / f"{name}.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return folder


@pytest.fixture(scope="module")
def written(folder):
    done = [
        strop(
            "tensorboard", "before.pb", "after.pb", "--logdir", "runs", "--no-serve", folder=folder
        )
        for _ in range(2)
    ]
    return done[-1]


@pytest.mark.slow
def test_each_graph_is_a_run_and_writing_it_again_replaces_it(folder, written):
    assert written.returncode == 0, written.stderr
    assert written.stdout.split("\n")[:2] == ["runs/before: 5 nodes", "runs/after: 2 nodes"]
    for run in ("before", "after"):
        assert len(list((folder / "runs" / run).iterdir())) == 1


@pytest.mark.slow
def test_tensorboard_shows_both(folder, written):
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", "runs", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = next(
                found[0] for line in process.stderr if (found := re.search(r"http://\S+?/", line))
            )

            def answer(path):
                with urllib.request.urlopen(address + path, timeout=30) as response:
                    return response.read().decode()

            known = json.loads(answer("data/plugin/graphs/info"))
            assert set(known) == {"before", "after"}
            for run, operations in (("before", 3), ("after", 0)):
                graph = answer(
                    f"data/plugin/graphs/graph?run={run}&large_attrs_key=_too_large_attrs"
                )
                assert graph.count('op: "Identity"') == operations
                assert graph.count('op: "Relu"') == 1
        finally:
            process.kill()


def test_what_is_no_graph_of_tensorflows_is_refused(tmp_path):
    onnx_dense(tmp_path / "dense.onnx")
    done = strop("tensorboard", "dense.onnx", "--no-serve", folder=tmp_path)
    assert done.returncode == 2
    assert "'dense.onnx' is of the form onnx" in done.stderr
    assert "Traceback" not in done.stderr
