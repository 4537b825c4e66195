"""What the README beside an artifact shows runs, and by the settings that won."""

from dataclasses import replace

import pytest

from strop.core.model import Form, Model
from strop.core.recipe import Recipe
from strop.core.signature import Signature, TensorSpec
from strop.graph.reading import read
from strop.report.snippets import readme, snippet
from tests.models import onnx_dense

SHIFT = Signature(
    (TensorSpec("x", (None, 2), "float32"),), (TensorSpec("shifted", (None, 2), "float32"),)
)


@pytest.fixture
def dense(tmp_path):
    return read(onnx_dense(tmp_path / "dense.onnx"), tmp_path)


def carried_out(lines, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(lines, names)
    return names


def test_onnx_runtime_is_shown_with_the_settings_that_won(dense, tmp_path, monkeypatch):
    settings = {"threads": 1, "graph_optimization": "extended", "spin": False}

    names = carried_out(snippet(dense, Recipe((), "onnxruntime", settings)), tmp_path, monkeypatch)

    options = names["session"].get_session_options()
    assert options.graph_optimization_level.name == "ORT_ENABLE_EXTENDED"
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert names["outputs"][0].shape == (1, 3)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"jit": "auto"}, ["tf.config.optimizer.set_jit('autoclustering')"]),
        ({"jit": "xla"}, ["jit_compile=True"]),
        ({"threads": 2}, ["tf.config.threading.set_intra_op_parallelism_threads(2)"]),
        ({}, []),
    ],
)
@pytest.mark.parametrize("form", [Form.KERAS, Form.SAVED_MODEL, Form.GRAPH_DEF])
def test_tensorflow_is_shown_with_the_settings_that_won(dense, form, settings, wanted):
    shown = snippet(replace(dense, form=form), Recipe((), "tensorflow", settings))
    for line in wanted:
        assert line in shown
    if not wanted:
        assert "set_jit" not in shown
        assert "jit_compile" not in shown
        assert "threading" not in shown


def test_a_saved_model_is_shown_with_the_signature_that_was_chosen(dense):
    model = replace(dense, form=Form.SAVED_MODEL, facts={"served": "score"})
    assert "loaded.signatures['score']" in snippet(model, Recipe((), "tensorflow"))


@pytest.mark.slow
@pytest.mark.parametrize("form", [Form.KERAS, Form.GRAPH_DEF])
def test_the_lines_for_tensorflow_run(made, form, monkeypatch):
    model = made.of_form(form)
    shown = snippet(model, Recipe((), "tensorflow", {"jit": "xla"}))
    names = carried_out(shown, model.path.parent, monkeypatch)
    assert names["outputs"][0].shape == (1, 10)


def test_an_engine_of_another_package_is_shown_with_strop_alone(dense):
    text = readme(dense, Recipe((), "somebodys_engine"), "dense.onnx")
    assert "With strop:" in text
    assert "Without strop:" not in text


@pytest.mark.parametrize("form", [Form.KERAS, Form.GRAPH_DEF])
def test_auto_clustering_is_switched_on_before_tensorflow_runs(tmp_path, monkeypatch, form):
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
    (tmp_path / "model").write_text("")
    model = Model.at(form, tmp_path / "model", SHIFT)

    lines = snippet(model, Recipe((), "tensorflow", {"jit": "auto"})).splitlines()

    flags = (
        "os.environ.update({'TF_XLA_FLAGS': '--tf_xla_cpu_global_jit'})   # before TensorFlow runs"
    )
    switch = "tf.config.optimizer.set_jit('autoclustering')"
    assert lines.index(flags) < lines.index("import tensorflow as tf") < lines.index(switch)
