"""The four parts never overlap, whatever the samples."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from strop.core.errors import SamplesError
from strop.core.samples import SPLITS, Samples
from strop.core.signature import Signature, TensorSpec
from strop.data.raw import RawSamples
from strop.data.splitting import FEW, MOST_CALIBRATE, MOST_JUDGED, split, synthesize

SEEDS = st.integers(0, 2**32 - 1)


def numbered(count, targets=None):
    """Samples that can be told apart, so that each can be followed to where it fell."""
    inputs = {"x": np.arange(count, dtype="float32")[:, None]}
    return Samples(inputs, {} if targets is None else {"out": targets})


def taking(*inputs):
    return Signature(inputs, (TensorSpec("out", (None, 2), "float32"),))


def values(samples):
    return samples.inputs["x"][:, 0].tolist()


@st.composite
def collections(draw):
    """Samples of several classes, some of them equal to others."""
    kinds = draw(st.lists(st.integers(0, 40), min_size=4, max_size=200))
    assume(len(set(kinds)) >= 3)  # fewer different ones are refused
    classes = draw(st.integers(1, 5))
    inputs = np.array(kinds, "float32")[:, None]
    return Samples({"x": inputs}, {"out": np.array(kinds) % classes})


@given(samples=collections(), seed=SEEDS)
def test_every_sample_falls_once_and_equal_ones_fall_together(samples, seed):
    splits = split(RawSamples(whole=samples), seed=seed)

    parts = [values(getattr(splits, name)) for name in SPLITS]
    assert Counter(value for part in parts for value in part) == Counter(values(samples))
    for place, part in enumerate(parts):
        for other in parts[place + 1 :]:
            assert not set(part) & set(other)


@given(samples=collections(), seed=SEEDS)
def test_targets_stay_with_their_inputs(samples, seed):
    classes = dict(zip(values(samples), samples.targets["out"].tolist(), strict=True))
    splits = split(RawSamples(whole=samples), seed=seed)
    for name in SPLITS:
        part = getattr(splits, name)
        assert part.targets["out"].tolist() == [classes[value] for value in values(part)]


@given(samples=collections(), seed=SEEDS)
def test_the_same_seed_divides_the_same_way(samples, seed):
    first, second = (split(RawSamples(whole=samples), seed=seed) for _ in range(2))
    assert first.digest() == second.digest()


@given(train=st.integers(1, 300), test=st.integers(2, 300), seed=SEEDS)
def test_what_is_for_training_never_judges(train, test, seed):
    raw = RawSamples(
        train=numbered(train),
        test=Samples({"x": -1 - np.arange(test, dtype="float32")[:, None]}),
    )
    splits = split(raw, seed=seed)
    assert all(value >= 0 for value in values(splits.train) + values(splits.calibrate))
    assert all(value < 0 for value in values(splits.select) + values(splits.confirm))
    assert len(splits.train) + len(splits.calibrate) == train
    assert len(splits.select) + len(splits.confirm) == test


@settings(max_examples=20)
@given(each=st.integers(20, 60), classes=st.integers(2, 6), seed=SEEDS)
def test_every_class_is_shared_out_alike(each, classes, seed):
    labels = np.repeat(np.arange(classes), each)
    splits = split(RawSamples(whole=numbered(len(labels), labels)), seed=seed)
    for name, share in (("train", 0.25), ("calibrate", 0.25), ("select", 0.25), ("confirm", 0.25)):
        counts = np.bincount(getattr(splits, name).targets["out"], minlength=classes)
        assert np.abs(counts - share * each).max() <= 1, name


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_rare_labels_that_are_written_as_floats_are_shared_out_too(shape):
    labels = np.repeat(np.float32([0, 1]), [190, 10])
    splits = split(RawSamples(whole=numbered(200, labels.reshape(shape))), seed=0)
    positives = [int(getattr(splits, name).targets["out"].sum()) for name in SPLITS]
    assert sum(positives) == 10
    assert set(positives) == {2, 3}


def test_figures_are_no_classes():
    figures = np.random.default_rng(0).permutation(100).astype("float32")
    parts = [split(RawSamples(whole=numbered(100, f)), seed=0) for f in (figures, figures / 3)]
    assert parts[0].select.inputs["x"].tolist() == parts[1].select.inputs["x"].tolist()


def test_many_classes_of_few_samples_each_are_shared_out():
    labels = np.repeat(np.arange(1000), 3)
    splits = split(RawSamples(whole=numbered(len(labels), labels)), seed=0)
    for name, most in (("calibrate", 1), ("select", 1), ("confirm", 1)):
        counts = np.bincount(getattr(splits, name).targets["out"], minlength=1000)
        assert counts.max() <= most, name


def test_one_hot_targets_are_classes_too():
    labels = np.repeat(np.arange(4), 40)
    splits = split(RawSamples(whole=numbered(160, np.eye(4)[labels])), seed=3)
    assert splits.select.targets["out"].sum(0).tolist() == [10, 10, 10, 10]


@settings(max_examples=20)
@given(each=st.integers(20, 60), classes=st.integers(2, 6), seed=SEEDS, one_set=st.booleans())
def test_any_head_of_a_part_has_all_classes_alike(each, classes, seed, one_set):
    labels = np.repeat(np.arange(classes), each)  # as a folder of images gives them
    samples = numbered(len(labels), labels)
    raw = RawSamples(whole=samples) if one_set else RawSamples(train=samples, test=samples)

    splits = split(raw, seed=seed)

    for name in SPLITS:
        part = getattr(splits, name).targets["out"]
        whole = np.bincount(part, minlength=classes) / len(part)
        for count in range(1, len(part) + 1):
            head = np.bincount(part[:count], minlength=classes)
            # Each class is spread evenly from a random start, which a head cuts at most one sample off
            # its share; what all of them are off by together moves the cut by one sample a class more.
            assert np.abs(head - count * whole).max() <= 2 + classes / len(part), (name, count)


def test_samples_in_both_sets_are_counted_and_told():
    raw = RawSamples(train=numbered(300), test=numbered(250).take(np.arange(100, 250)))
    assert (
        split(raw, seed=0)
        .notes[0]
        .startswith("150 of the 150 samples for testing are among those for training too")
    )
    apart = RawSamples(train=numbered(100), test=numbered(250).take(np.arange(100, 250)))
    assert "for training too" not in " ".join(split(apart, seed=0).notes)


def test_the_order_within_a_part_is_the_seeds():
    first, again, other = (
        values(split(RawSamples(whole=numbered(100)), seed=seed).train) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert first != sorted(first)


@pytest.mark.parametrize(("classes", "each"), [(200, 1), (100, 4), (50, 3), (7, 2)])
def test_classes_too_fine_to_share_out_leave_the_parts_their_shares(classes, each):
    count = classes * each
    one_hot = np.eye(classes)[np.repeat(np.arange(classes), each)]

    splits = split(RawSamples(whole=numbered(count, one_hot)), seed=0)

    for name, share in (("train", 0.25), ("calibrate", 0.25), ("select", 0.25), ("confirm", 0.25)):
        assert abs(len(getattr(splits, name)) - share * count) <= 1, name


@given(count=st.integers(3, 12), classes=st.integers(1, 12), seed=SEEDS)
def test_no_part_that_is_looked_at_stays_empty(count, classes, seed):
    labels = np.eye(12)[np.arange(count) % classes]
    splits = split(RawSamples(whole=numbered(count, labels)), seed=seed)
    assert min(len(splits.calibrate), len(splits.select), len(splits.confirm)) >= 1


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (RawSamples(whole=numbered(2)), "2 different samples are there, and 3 are needed"),
        (
            RawSamples(whole=Samples({"x": np.zeros((50, 1), "float32")})),
            "1 different sample is there, and 3 are needed",
        ),
        (
            RawSamples(train=numbered(9), test=numbered(1)),
            "1 different sample is there, and 2 are needed: one each to select and confirm",
        ),
    ],
    ids=["few", "all equal", "few for testing"],
)
def test_fewer_samples_than_parts_are_refused(raw, told):
    with pytest.raises(SamplesError, match=told):
        split(raw, seed=0)


def test_the_parts_that_cost_time_are_capped_and_the_rest_trains():
    count = 30_000
    splits = split(RawSamples(whole=numbered(count)), seed=1)
    assert len(splits.calibrate) == MOST_CALIBRATE
    assert len(splits.select) == len(splits.confirm) == MOST_JUDGED
    assert len(splits.train) == count - MOST_CALIBRATE - 2 * MOST_JUDGED


def test_it_says_how_many_fell_where_and_what_is_too_few():
    many = split(RawSamples(whole=numbered(8 * FEW)), seed=0).notes
    assert many == (
        "of the samples fell 200 to train, 200 to calibrate, 200 to select, 200 to confirm",
    )

    few = " ".join(split(RawSamples(whole=numbered(40)), seed=0).notes)
    assert "only 10 samples to select: one answer more or less is 10.0%" in few
    assert "only 10 samples to calibrate" in few


def test_made_up_inputs_fit_the_signature_and_say_what_they_prove():
    signature = Signature(
        (
            TensorSpec("image", (None, 4, None, 3), "float32"),
            TensorSpec("tokens", (None, 7), "int32"),
        ),
        (TensorSpec("out", (None, 2), "float32"),),
    )

    splits = synthesize(signature, seed=0, count=10, shapes={"image": (1, 4, 9, 3)})

    assert splits.synthetic
    assert "says little about accuracy" in splits.notes[0]
    assert splits.select.inputs["image"].shape == (10, 4, 9, 3)
    assert splits.select.inputs["tokens"].dtype == np.int32
    assert not np.array_equal(splits.select.inputs["image"], splits.confirm.inputs["image"])


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_made_up_bytes_are_pixels_or_codes_and_take_their_whole_range(dtype):
    made = synthesize(taking(TensorSpec("image", (None, 16, 16, 3), dtype)), seed=0, count=8)
    found = made.select.inputs["image"]
    assert found.dtype == dtype
    assert len(np.unique(found)) > 200


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", "uint32", "bool"])
def test_made_up_whole_numbers_stay_within_any_table(dtype):
    made = synthesize(taking(TensorSpec("tokens", (None, 9), dtype)), seed=0, count=8)
    found = made.select.inputs["tokens"]
    assert found.dtype == dtype
    assert set(np.unique(found).tolist()) == {0, 1}


def test_sizes_that_nothing_tells_are_asked_for_and_not_guessed():
    signature = taking(
        TensorSpec("image", (None, None, None, 3), "float32"),
        TensorSpec("fixed", (None, 4), "float32"),
        TensorSpec("tokens", (None, None), "int32"),
    )
    with pytest.raises(SamplesError) as caught:
        synthesize(signature, seed=0)
    assert str(caught.value) == (
        "without samples nothing tells how long these are: axes 1 and 2 of the input 'image'; axis 1 of the input "
        "'tokens'.\n"
        "Give samples with --data, or the shapes that the model is used with, such as:\n"
        "  --shape image=1,224,224,3 --shape tokens=1,128"
    )
