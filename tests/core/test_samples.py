import numpy as np
import pytest

from strop.core import digest
from strop.core.samples import SPLITS, Samples, Splits


def some(count=5, start=0):
    numbers = np.arange(start, start + count)
    return Samples({"x": numbers[:, None].astype(np.float32)}, {"label": numbers})


def test_what_is_saved_is_mapped_back_the_same(tmp_path):
    samples = some()

    samples.save(tmp_path)
    back = Samples.load(tmp_path)

    assert back.digest() == samples.digest()
    assert isinstance(back.inputs["x"], np.memmap)


def test_an_empty_part_survives_being_saved(tmp_path):
    splits = Splits(some(0), some(2), some(2, 2), some(1, 4), synthetic=True, notes=("few",))

    splits.save(tmp_path)
    back = Splits.load(tmp_path)

    assert back.digest() == splits.digest()
    assert [len(getattr(back, name)) for name in SPLITS] == [0, 2, 2, 1]
    assert (back.synthetic, back.notes) == (True, ("few",))


def test_batches_hold_every_sample_once_and_the_last_may_be_smaller():
    batches = list(some(5).batches(2))

    assert [len(batch["x"]) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(
        np.concatenate([batch["x"] for batch in batches]), some(5).inputs["x"]
    )


@pytest.mark.parametrize(
    ("count", "size", "wanted"),
    [
        (4, 2, [[0, 1], [2, 3]]),
        (5, 2, [[0, 1], [2, 3], [4, 0]]),
        (2, 5, [[0, 1, 0, 1, 0]]),
        (0, 5, []),
    ],
)
def test_full_batches_begin_again_where_places_are_left(count, size, wanted):
    batches = list(some(count).full_batches(size))

    assert [batch["x"].ravel().tolist() for batch in batches] == wanted


def test_taking_takes_the_targets_along():
    taken = some().take(np.array([3, 1]))

    assert taken.inputs["x"].ravel().tolist() == [3, 1]
    assert taken.targets["label"].tolist() == [3, 1]


@pytest.mark.parametrize(
    "other",
    [
        {"x": np.zeros(4, np.float32)},
        {"x": np.zeros((2, 2), np.float64)},
        {"y": np.zeros((2, 2), np.float32)},
        {"x": np.ones((2, 2), np.float32)},
    ],
    ids=["shape", "dtype", "name", "content"],
)
def test_a_digest_knows_names_dtypes_shapes_and_contents(other):
    array = {"x": np.zeros((2, 2), np.float32)}
    assert digest.of_arrays(array) == digest.of_arrays({"x": np.zeros((2, 2), np.float32, "F")})
    assert digest.of_arrays(array) != digest.of_arrays(other)


def test_joined_samples_are_all_of_both_with_the_targets_that_both_have():
    first = Samples({"x": np.arange(3)}, {"y": np.arange(3), "z": np.arange(3)})
    both = first.joined(Samples({"x": np.arange(3, 5)}, {"y": np.arange(3, 5)}))
    np.testing.assert_array_equal(both.inputs["x"], np.arange(5))
    np.testing.assert_array_equal(both.targets["y"], np.arange(5))
    assert both.targets.keys() == {"y"}
