"""`strop distill`: a trained network, its samples, and a smaller `.keras` file that learned from it."""

import json
import re

import keras
import numpy as np
import pytest
from keras import layers

from strop.api.distilling import distill
from strop.core.errors import ModelError, OutputError, SamplesError
from strop.graph.keras_files import load
from tests.cli.test_bad_input import refused, strop


@pytest.fixture(scope="module")
def distilled(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distilled")
    done = strop(
        "distill", digits.model, "--data", digits.data, "--macs", 0.4, "--epochs", 15, "--batch-size", 16,
        "--max-drop", 0.05, "--output", "small.keras", folder=folder,
    )  # fmt: skip
    return folder, done


def test_a_smaller_model_keeps_the_answers(distilled, digits):
    folder, done = distilled
    assert done.returncode == 0, done.stderr
    assert load(folder / "small.keras").count_params() < 0.6 * load(digits.model).count_params()
    drop = float(re.search(r"accuracy drops by (\S+)", done.stdout).group(1))
    assert drop <= 0.05


def test_what_was_done_and_what_it_brought_is_said(distilled):
    _, done = distilled
    assert re.search(r"macs: 3\d\.\d% of the original's: [\d,]+ of [\d,]+ a sample", done.stdout)
    assert re.search(r"conv2d\S* +\d+ of 32", done.stdout)
    assert re.search(r"digit +its channels are those of an output", done.stdout)
    assert re.search(r"taught by: \S*crossentropy and the original's answers", done.stdout)


@pytest.mark.slow
def test_a_student_in_memory_is_taught_and_stays_as_it_is(digits, tmp_path):
    keras.utils.set_random_seed(0)
    student = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(48, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    before = student.get_weights()
    found = distill(
        digits.model, digits.data, tmp_path / "o.keras", student=student,
        epochs=20, batch_size=16, learning_rate=0.003,
    )  # fmt: skip
    for was, now in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)
    assert found.model().count_params() == student.count_params()
    assert found.fidelity.metric.value > 0.9
    assert json.dumps(dict(found.facts))


def test_what_can_not_be_taught_is_refused(digits, tmp_path):
    with pytest.raises(SamplesError, match="no samples to teach"):
        distill(digits.model, output=tmp_path / "o.keras")
    with pytest.raises(ModelError, match=r"there is no student at 'none\.keras'"):
        distill(digits.model, digits.data, tmp_path / "o.keras", student="none.keras")
    assert not (tmp_path / "o.keras").exists()


def test_a_student_is_not_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    student = tmp_path / "distilled.keras"
    student.write_bytes(b"mine")
    with pytest.raises(OutputError, match="never written over"):
        distill("model.keras", "data.npz", student=student)
    assert student.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--macs", "0"), "macs must be"),
        (("--layers", "conv2d"), "layers are compared by the methods"),
        (("--output", "digits.keras"), "is the model itself"),
    ],
)
def test_settings_that_make_no_sense_are_refused(digits, arguments, said):
    folder = digits.model.parent
    refused(strop("distill", "digits.keras", *arguments, folder=folder), said)
