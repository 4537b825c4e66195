"""Samples are drawn once: what gives others each time is not asked again, and what is a file is read again."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from strop.core.model import Binding, Form, Model
from strop.core.samples import Splits
from strop.core.signature import Signature, TensorSpec
from strop.data.raw import Preparation
from strop.engine.sampling import draw

SIGNATURE = Signature(
    (TensorSpec("x", (None, 3), "float32"),), (TensorSpec("y", (None, 2), "float32"),)
)
SHUFFLING = (
    "import numpy as np\ndef samples():\n    return np.random.default_rng().random((40, 3))\n"
)


@pytest.fixture
def model(tmp_path):
    return Model(Form.ONNX, tmp_path / "model.onnx", SIGNATURE, Binding.plain(SIGNATURE), "digest")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module with a function that gives other samples at each call, under a name of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / f"giver_{tmp_path.name}.py"
    file.write_text(SHUFFLING)
    return file


def drawn(source, model, folder, *, preparation=None, seed=0):
    return draw(source, model, preparation or Preparation(), seed, folder / "samples")


def test_a_function_is_asked_once(model, module, tmp_path):
    first = drawn(f"{module.stem}:samples", model, tmp_path)
    assert drawn(f"{module.stem}:samples", model, tmp_path) == first
    assert "asked once" in Splits.load(first).notes[-1]


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"preparation": Preparation(scale=0.5)}],
    ids=["another seed", "another preparation"],
)
def test_what_was_asked_otherwise_is_not_taken(model, module, tmp_path, other):
    first = drawn(f"{module.stem}:samples", model, tmp_path)
    assert drawn(f"{module.stem}:samples", model, tmp_path, **other) != first


def test_a_function_whose_module_was_changed_is_asked_again(model, module, tmp_path):
    first = drawn(f"{module.stem}:samples", model, tmp_path)
    module.write_text(SHUFFLING + "# another\n")
    assert drawn(f"{module.stem}:samples", model, tmp_path) != first


def test_splits_that_are_damaged_are_drawn_again(model, module, tmp_path):
    first = drawn(f"{module.stem}:samples", model, tmp_path)
    (first / "select" / "inputs0.npy").write_bytes(b"")
    again = drawn(f"{module.stem}:samples", model, tmp_path)
    assert again != first
    assert len(Splits.load(again).select) == 10


@pytest.mark.slow
def test_a_saved_dataset_is_drawn_again_only_where_its_files_are_others(model, tmp_path):
    import tensorflow as tf

    def save(count):
        tf.data.Dataset.from_tensor_slices(np.random.default_rng(0).random((count, 3))).save(
            str(tmp_path / "saved")
        )

    save(40)
    first = drawn(str(tmp_path / "saved"), model, tmp_path)
    assert drawn(str(tmp_path / "saved"), model, tmp_path) == first
    assert "asked once" in Splits.load(first).notes[-1]

    shutil.rmtree(tmp_path / "saved")
    save(48)
    assert drawn(str(tmp_path / "saved"), model, tmp_path) != first


def test_damaged_splits_of_a_file_are_written_again(model, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((40, 3)))
    place = drawn(str(tmp_path / "x.npy"), model, tmp_path)
    digest = Splits.load(place).digest()
    file = place / "select" / "inputs0.npy"
    file.write_bytes(file.read_bytes()[:-4] + b"1234")

    assert drawn(str(tmp_path / "x.npy"), model, tmp_path) == place
    assert Splits.load(place).digest() == digest


def test_a_file_is_read_again(model, tmp_path):
    places = []
    for seed in (0, 1):
        np.save(tmp_path / "x.npy", np.random.default_rng(seed).random((40, 3)))
        places.append(drawn(str(tmp_path / "x.npy"), model, tmp_path))
    assert places[0] != places[1]


def test_what_a_killed_run_left_half_written_is_swept(model, tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = [tmp_path / "samples" / f"draft-{who}-abc" for who in (ended.pid, os.getpid())]
    for folder in left:
        folder.mkdir(parents=True)

    drawn(None, model, tmp_path)

    assert [folder.exists() for folder in left] == [False, True]
