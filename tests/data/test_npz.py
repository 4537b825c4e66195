"""NumPy files: what they may be called, and that nothing in them is left out in silence."""

import numpy as np
import pytest

from strop.core.errors import SamplesError
from strop.core.signature import Signature, TensorSpec
from strop.data.reading import read

SCORE, KIND = TensorSpec("score", (None, 1), "float32"), TensorSpec("kind", (None, 4), "float32")
ONE = Signature((TensorSpec("image", (None, 2), "float32"),), (SCORE, KIND))
TWO = Signature(
    (TensorSpec("x", (None, 2), "float32"), TensorSpec("mask", (None, 3), "bool")), (SCORE, KIND)
)
X, MASK = np.arange(12, dtype="float64").reshape(6, 2), np.ones((6, 3), bool)
KINDS, SCORES = np.arange(6) % 4, np.linspace(0, 1, 6)


@pytest.fixture
def saved(tmp_path):
    def save(**arrays):
        np.savez(tmp_path / "val.npz", **arrays)
        return tmp_path / "val.npz"

    return save


def test_x_and_y_are_the_input_and_the_first_outputs_targets(saved):
    found = read(saved(x=X, y=SCORES), ONE).whole
    np.testing.assert_array_equal(found.inputs["image"], X)
    assert found.inputs["image"].dtype == np.float32
    np.testing.assert_array_equal(found.targets["score"], SCORES)


def test_one_array_in_a_file_of_its_own_is_the_input(tmp_path):
    np.save(tmp_path / "x.npy", X)
    found = read(str(tmp_path / "x.npy"), ONE).whole
    np.testing.assert_array_equal(found.inputs["image"], X)
    assert found.targets == {}


def test_pairs_keep_what_is_for_training_from_what_is_for_testing(saved):
    found = read(saved(x_train=X, y_train=SCORES, x_test=X[:2] + 100, y_test=SCORES[:2]), ONE)
    assert found.whole is None
    assert (len(found.train), len(found.test)) == (6, 2)
    assert found.test.inputs["image"].min() == 100
    np.testing.assert_array_equal(found.test.targets["score"], SCORES[:2])


@pytest.mark.parametrize("signature", [ONE, TWO])
def test_arrays_may_be_named_after_inputs_and_outputs(saved, signature):
    arrays = {"image": X} if signature is ONE else {"x": X, "mask": MASK}
    found = read(saved(**arrays, kind=KINDS, score=SCORES), signature)
    assert set(found.whole.inputs) == set(signature.input_names)
    np.testing.assert_array_equal(found.whole.targets["kind"], KINDS)
    np.testing.assert_array_equal(found.whole.targets["score"], SCORES)
    assert found.notes == ()


def test_x_may_stand_beside_targets_named_after_the_outputs(saved):
    found = read(saved(x=X, kind=KINDS, score=SCORES), ONE).whole
    assert set(found.targets) == {"kind", "score"}


def test_y_is_the_first_output_also_beside_named_ones(saved):
    found = read(saved(x=X, y=SCORES, kind=KINDS), ONE).whole
    np.testing.assert_array_equal(found.targets["score"], SCORES)
    np.testing.assert_array_equal(found.targets["kind"], KINDS)


def test_an_input_called_y_is_no_target(saved):
    named = Signature((TensorSpec("y", (None, 2), "float32"),), (SCORE,))
    found = read(saved(y=X), named).whole
    np.testing.assert_array_equal(found.inputs["y"], X)
    assert found.targets == {}


@pytest.mark.parametrize(
    "arrays", [{"x": X, "y": SCORES}, {"x_train": X, "x_test": X}, {"image": X}]
)
def test_arrays_that_nothing_takes_are_named(saved, arrays):
    assert read(saved(**arrays, kinds=KINDS, extra=X), ONE).notes == (
        "of the arrays in the file these were not used: extra, kinds",
    )


def test_x_alone_is_too_little_for_two_inputs(saved):
    with pytest.raises(SamplesError, match="the model takes 2: 'x', 'mask'"):
        read(saved(x=X, y=SCORES), TWO)


def test_a_file_whose_compressed_data_is_damaged_is_told(tmp_path):
    file = tmp_path / "val.npz"
    np.savez_compressed(file, x=np.random.default_rng(0).random((400, 2)))
    data = bytearray(file.read_bytes())
    data[200:300] = bytes(100)
    file.write_bytes(bytes(data))
    with pytest.raises(SamplesError, match="can't be read as NumPy arrays"):
        read(file, ONE)
