"""What can't be compressed by training: refused before it costs time, or told with what is left alone, by exit code."""

import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import strop as library
from strop.core.errors import ModelError, OutputError, ParameterError, SamplesError
from strop.graph.keras_files import load
from strop.graph.quiet import quiet
from tests.cli.test_bad_input import SOURCE, contents, refused, strop

COMMANDS = ("prune", "cluster", "factorize")
SMALLER = {"prune": {"sparsity": 0.6}, "cluster": {"clusters": 4}, "factorize": {"energy": 0.3}}


def samples(count=200):
    x = np.random.default_rng(0).normal(size=(count, 8)).astype("float32")
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)


def net(*, last="softmax"):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8,), name="x"),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dense(3, activation=last, name="kind"),
        ]
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a model and its samples, where the work is done."""
    monkeypatch.chdir(tmp_path)
    with quiet():
        net().save("model.keras")
    x, y = samples()
    np.savez("samples.npz", x=x, y=y)
    return tmp_path


REFUSED = {
    "a sparsity of 1": ("prune", {"sparsity": 1.0}, ParameterError, "sparsity must be at most"),
    "a sparsity below 0": ("prune", {"sparsity": -0.1}, ParameterError, "sparsity must be at least 0"),
    "a sparsity that is none": ("prune", {"sparsity": float("nan")}, ParameterError, "not nan"),
    "a pattern that keeps all": ("prune", {"pattern": "4:4"}, ParameterError, "pattern"),
    "no pattern": ("prune", {"pattern": "stripes"}, ParameterError, "pattern"),
    "a pattern ranked in all": (
        "prune", {"pattern": "2:4", "ranking": "global"}, ParameterError, "has no say",
    ),
    "one cluster": ("cluster", {"clusters": 1}, ParameterError, "clusters must be at least 2"),
    "no energy": ("factorize", {"energy": 0.0}, ParameterError, "energy must be at least"),
    "no budget": ("factorize", {"macs": 0.0}, ParameterError, "macs must be at least"),
    "epochs below 0": ("prune", {"epochs": -1}, ParameterError, "epochs must be at least 0"),
    "a rate that is none": ("cluster", {"learning_rate": float("nan")}, ParameterError, "not nan"),
    "no batches": ("factorize", {"batch_size": 0}, ParameterError, "batch_size must be at least 1"),
    "a setting unknown": ("prune", {"sparse": 0.5}, ParameterError, "has no parameter 'sparse'"),
    "a name alone": ("cluster", {"exclude": "hidden"}, ParameterError, "exclude must be a tuple"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", REFUSED)
def test_settings_that_can_not_be_are_refused_at_once(folder, wrong):
    command, settings, error, told = REFUSED[wrong]
    with pytest.raises(error, match=told) as raised:
        getattr(library, command)("model.keras", "samples.npz", **settings)
    assert raised.value.exit_code == 2
    assert contents(folder) == ["model.keras", "samples.npz"]


OUTPUTS = {
    "the model": ("model.keras", "is the model itself"),
    "the model by another name": ("./beside/../model.keras", "is the model itself"),
    "a folder": ("beside", "is a folder"),
    "in no folder": ("nowhere/out.keras", "lies in no folder that is there"),
    "the samples": ("samples.npz", "a file ending in .keras is written"),
    "of another form": ("out.h5", "a file ending in .keras is written"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("where", OUTPUTS)
def test_an_output_that_can_not_be_written_is_refused_at_once(folder, command, where):
    (folder / "beside").mkdir()
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    output, told = OUTPUTS[where]
    with pytest.raises(OutputError, match=told):
        getattr(library, command)("model.keras", "samples.npz", output)
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before


@pytest.mark.parametrize("command", COMMANDS)
def test_without_samples_nothing_is_taught(folder, command):
    with pytest.raises(SamplesError, match="no samples to teach the model on"):
        getattr(library, command)("model.keras")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_training_that_diverges_at_once_exits_with_1_and_writes_nothing(folder, command):
    (option, value), = SMALLER[command].items()  # fmt: skip
    done = strop(
        command, "model.keras", "--data", "samples.npz", f"--{option}", value, "--epochs", 2,
        "--learning-rate", "1e39", folder=folder,
    )  # fmt: skip
    refused(done, "DivergedError: ", code=1)
    assert "training diverged: its loss or its weights were no numbers" in done.stderr
    assert contents(folder) == ["model.keras", "samples.npz"]


@pytest.mark.slow
def test_training_that_diverges_late_keeps_the_best_and_exits_with_1(folder):
    # Six steps an epoch, and all is dropped by the fourth: the seventh of eight diverges.
    rising = keras.optimizers.schedules.PiecewiseConstantDecay([38], [0.01, 1e38])
    model = net()
    model.compile(keras.optimizers.SGD(rising), "sparse_categorical_crossentropy")
    with quiet():
        model.save("model.keras")
    done = strop(
        "prune", "model.keras", "--data", "samples.npz", "--epochs", 8, "--batch-size", 16,
        "--learning-rate", 0, "--output", "out.keras", folder=folder,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "diverged: training diverged" in done.stdout
    weights = load(folder / "out.keras").get_weights()
    assert all(np.isfinite(weight).all() for weight in weights)
    assert np.mean(weights[0] == 0) > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_that_is_frozen_is_left_as_it_is_and_says_why(folder, command):
    model = net()
    model.trainable = False
    with pytest.raises(ModelError) as raised:
        getattr(library, command)(model, samples(), epochs=0, **SMALLER[command])
    assert "hidden: it is frozen (trainable=False)" in str(raised.value)


@pytest.mark.slow
def test_a_loss_that_can_not_be_had_again_gives_way_to_the_usual_one(folder):
    def own_loss(wanted, given):
        return ops.mean(keras.losses.sparse_categorical_crossentropy(wanted, given))

    model = net()
    model.compile("adam", own_loss)
    found = library.prune(model, samples(), epochs=2)
    assert found.facts["taught_by"] == (
        "sparse_categorical_crossentropy and the original's answers "
        "(its own loss, 'own_loss', can't be had of its file)"
    )


@pytest.mark.slow
def test_a_model_that_no_file_can_hold_is_refused(folder):
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.last = layers.Dense(3)

        def call(self, x):
            return self.last(x)

    model = Own()
    model(samples()[0])
    with pytest.raises(ModelError, match="'own'"):
        library.prune(model, samples())
    with pytest.raises(ModelError, match="not yet been built"):
        library.prune(keras.Sequential([layers.Dense(3)]), samples())
    assert contents(folder) == ["model.keras", "samples.npz"]


@pytest.mark.slow
def test_too_few_samples_are_told(folder):
    x, y = samples(8)
    with pytest.raises(SamplesError, match="too few to learn from"):
        library.cluster("model.keras", (x, y))


@pytest.mark.slow
def test_an_interruption_exits_with_130_and_keeps_what_was_learnt(folder):
    process = subprocess.Popen(
        [
            sys.executable, "-m", "strop", "prune", "model.keras", "--data", "samples.npz", "--epochs", "2000",
            "--output", "out.keras",
        ],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "CUDA_VISIBLE_DEVICES": "-1"},
    )  # fmt: skip
    for line in process.stdout:
        if "training, about" in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert contents(folder) == [".out.keras.unfinished", "model.keras", "samples.npz"]
