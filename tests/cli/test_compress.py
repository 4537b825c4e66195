"""`strop prune` and `strop cluster`: a trained network, its samples, and a smaller `.keras` file that still answers right."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import strop as library
from strop.core.errors import ModelError, ParameterError, SamplesError
from strop.graph.keras_files import load
from tests.cli.test_bad_input import refused, strop
from tests.models import dense_case

SOURCE = Path(__file__).parents[2] / "src"


def kernels(path):
    return [w for w in load(path).get_weights() if w.ndim > 1]


@pytest.fixture(scope="module")
def pruned(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned")
    done = strop(
        "prune", digits.model, "--data", digits.data, "--sparsity", 0.7, "--epochs", 12, "--batch-size", 16,
        "--max-drop", 0.03,
        "--output", "out.keras", folder=folder,
    )  # fmt: skip
    return folder, done


def test_most_weights_are_zero_and_the_answers_are_kept(pruned):
    folder, done = pruned
    assert done.returncode == 0, done.stderr
    zeros = np.concatenate([kernel.reshape(-1) == 0 for kernel in kernels(folder / "out.keras")])
    assert zeros.mean() == pytest.approx(0.7, abs=0.002)
    drop = float(re.search(r"accuracy drops by (\S+)", done.stdout).group(1))
    assert drop <= 0.03


def test_what_was_done_and_what_it_cost_is_said(pruned):
    _, done = pruned
    assert "sparsity:" in done.stdout
    assert re.search(r"conv2d\S* +[5-8]\d\.\d%", done.stdout)
    assert re.search(r"size zipped: .* -> .* \([2-9]\.\d\dx smaller\)", done.stdout)
    assert re.search(r"\d+%  training, about \d+ s left", done.stdout)


@pytest.mark.slow
def test_the_file_is_a_model_like_any_other(pruned):
    folder, _ = pruned
    model = keras.models.load_model(folder / "out.keras")
    assert model(np.zeros((1, *model.input_shape[1:]), "float32")).shape == (1, 10)
    again = library.prune(
        folder / "out.keras", output=folder / "more.keras", sparsity=0.9, epochs=0
    )
    assert np.mean(kernels(again.path)[0] == 0) == pytest.approx(0.9, abs=0.02)


@pytest.mark.slow
def test_weights_share_a_few_values_and_zeros_stay(pruned, digits):
    folder, _ = pruned
    done = strop(
        "cluster", "out.keras", "--data", digits.data, "--clusters", 8, "--epochs", 4, "--batch-size", 16,
        "--max-drop", 0.05,
        "--output", "shared.keras", folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for before, after in zip(
        kernels(folder / "out.keras"), kernels(folder / "shared.keras"), strict=True
    ):
        assert len(np.unique(after)) <= 8
        np.testing.assert_array_equal(after[before == 0], 0)


@pytest.mark.slow
def test_a_limit_that_is_missed_is_said_and_the_model_written(digits, tmp_path):
    done = strop(
        "prune", digits.model, "--data", digits.data, "--sparsity", 0.97, "--epochs", 0, "--output", "o.keras",
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "NOT within the limits" in done.stdout
    assert (tmp_path / "o.keras").exists()


@pytest.mark.slow
def test_a_model_in_memory_stays_as_it_is(digits, tmp_path):
    model = load(digits.model)
    before = [w.copy() for w in model.get_weights()]
    found = library.prune(model, output=tmp_path / "o.keras", epochs=0)
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)
    assert np.mean(found.model().get_weights()[0] == 0) == pytest.approx(0.5, abs=0.02)
    assert json.dumps(dict(found.facts))


def test_what_can_not_be_trained_is_refused(digits, tmp_path):
    with pytest.raises(SamplesError, match="no samples to teach"):
        library.prune(digits.model, output=tmp_path / "o.keras")
    with pytest.raises(ModelError, match="only Keras models"):
        library.cluster(dense_case(tmp_path), output=tmp_path / "o.keras", epochs=0)
    assert not (tmp_path / "o.keras").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--sparsity", "1.0"), "sparsity must be"),
        (("--sparsity", "-0.1"), "sparsity must be"),
        (("--epochs", "-1"), "epochs must be"),
        (("--output", "digits.keras"), "is the model itself"),
        (("--output", "nowhere/o.keras"), "lies in no folder"),
        (("--output", "o.h5"), "a file ending in .keras is written"),
    ],
)
def test_settings_that_make_no_sense_are_refused(digits, arguments, said):
    folder = digits.model.parent
    refused(strop("prune", "digits.keras", *arguments, folder=folder), said)


@pytest.mark.slow
def test_too_few_samples_are_refused_before_anything_is_taught(digits, tmp_path):
    with np.load(digits.data) as data:
        few = {name: data[name][:12] for name in data.files}
    np.savez(tmp_path / "few.npz", **few)
    with pytest.raises(SamplesError, match="samples fell to training, too few"):
        library.prune(digits.model, tmp_path / "few.npz", tmp_path / "o.keras")


@pytest.mark.slow
def test_an_interrupted_training_is_gone_on_with(digits, tmp_path):
    arguments = (
        "prune", digits.model, "--data", digits.data, "--sparsity", "0.5", "--epochs", "60", "--batch-size", "16",
        "--max-drop", "0", "--output", "o.keras",
    )  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "strop", *map(str, arguments)],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    said = ""
    while " 30%" not in said and " 31%" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in rest
    assert not (tmp_path / "o.keras").exists()
    again = strop(*arguments, folder=tmp_path)
    first = int(re.search(r"(\d+)%  training", again.stdout).group(1))
    assert first >= 30, again.stdout
    assert (tmp_path / "o.keras").exists()
    assert not (tmp_path / ".o.keras.unfinished").exists()


@pytest.mark.parametrize("model", [None, 42, ["no", "model"]])
def test_what_is_no_model_is_refused_by_its_value(model, tmp_path):
    with pytest.raises(ModelError, match=r"expected the path of a model or a keras\.Model, got"):
        library.prune(model, output=tmp_path / "o.keras", epochs=0)


def test_functions_in_python_are_refused_where_a_recipe_has_to_name_them(digits, tmp_path):
    with pytest.raises(ParameterError, match="must hold names, or functions as 'module:name'"):
        library.prune(digits.model, output=tmp_path / "o.keras", exclude=(lambda layer: True,))


@pytest.mark.parametrize("command", ["prune", "cluster", "factorize", "distill"])
def test_help_draws_what_a_technique_does_as_it_is_drawn(command, tmp_path):
    done = strop(command, "--help", folder=tmp_path)
    assert re.search(r"\n  Before:  .+\n  After:   ", done.stdout)
