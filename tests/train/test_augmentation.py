"""Images are changed as asked, by chance and by seed, and nothing else is."""

import keras
import numpy as np
import pytest

from strop.core.errors import ParameterError
from strop.core.samples import Samples
from strop.core.signature import Signature, TensorSpec
from strop.graph.keras_models import signature_of
from strop.passes import AUGMENTATIONS
from strop.train.augmentation import KINDS, augmentation
from strop.train.fine_tuning import FineTuning, fine_tune

IMAGES = np.arange(6 * 16 * 8 * 2, dtype="float32").reshape(6, 16, 8, 2)


def signature(*shapes, output=(None, 3)):
    inputs = tuple(TensorSpec(f"x{n}", shape, "float32") for n, shape in enumerate(shapes))
    return Signature(inputs, (TensorSpec("y", output, "float32"),))


def changed(kinds, *arrays, seed=0, times=1):
    change = augmentation(kinds, signature(*((None, *a.shape[1:]) for a in arrays)), seed=seed)
    for _ in range(times):
        found = [np.asarray(tensor) for tensor in change(arrays).inputs]
    return found


def test_what_recipes_may_name_is_what_there_is():
    assert AUGMENTATIONS == KINDS


def test_some_images_are_mirrored_whole_and_the_others_left():
    (found,) = changed(["flip"], IMAGES)
    mirrored = [
        np.array_equal(one, before[:, ::-1]) for one, before in zip(found, IMAGES, strict=True)
    ]
    same = [np.array_equal(one, before) for one, before in zip(found, IMAGES, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert any(mirrored)
    assert any(same)


def test_shifted_images_hold_what_was_there_by_an_eighth_elsewhere():
    seen = set()
    for seed in range(12):
        (found,) = changed(["shift"], IMAGES, seed=seed)
        assert found.shape == IMAGES.shape
        wider = np.pad(IMAGES, [(0, 0), (2, 2), (1, 1), (0, 0)], mode="reflect")
        places = [
            (i, j) for i in range(5) for j in range(3)
            if np.array_equal(found, wider[:, i : i + 16, j : j + 8])
        ]  # fmt: skip
        assert len(places) == 1
        seen |= set(places)
    assert len(seen) > 4


def test_the_next_step_is_changed_otherwise_and_the_same_seed_alike():
    (first,), (again,) = changed(KINDS, IMAGES, seed=3), changed(KINDS, IMAGES, seed=3)
    np.testing.assert_array_equal(first, again)
    (later,) = changed(KINDS, IMAGES, seed=3, times=4)
    assert not np.array_equal(first, later)


def test_what_is_one_row_high_is_shifted_along_it():
    row = IMAGES[:, :1]
    (found,) = changed(["shift"], row, seed=1)
    assert found.shape == row.shape
    assert set(found.ravel()) <= set(row.ravel())


def test_what_is_no_image_is_not_mirrored_or_shifted():
    numbers = np.arange(12.0, dtype="float32").reshape(6, 2)
    found = changed(["flip", "shift"], numbers, IMAGES)
    np.testing.assert_array_equal(found[0], numbers)
    assert not np.array_equal(found[1], IMAGES)


def test_all_inputs_are_mixed_with_those_of_the_sample_at_the_same_place_from_the_end():
    numbers = np.arange(12.0, dtype="float32").reshape(6, 2)
    mix = augmentation(["mix"], signature((None, 2), IMAGES.shape))
    shares = set()
    for _ in range(4):
        found = mix((numbers, IMAGES))
        own = float(found.own)
        assert 0 <= own <= 1
        shares.add(own)
        for now, before in zip(found.inputs, (numbers, IMAGES), strict=True):
            # Each product is rounded once, and their sum.
            off = 3 * np.finfo("float32").eps * np.abs(before).max()
            wanted = own * before.astype("float64") + (1 - own) * before[::-1]
            np.testing.assert_allclose(now, wanted, atol=off, rtol=0)
    assert len(shares) == 4


def test_a_rectangle_of_each_image_comes_from_its_counterpart():
    cut = augmentation(["cut"], signature(IMAGES.shape))
    shares = []
    for _ in range(20):
        found = cut([IMAGES])
        (images,) = (np.asarray(tensor) for tensor in found.inputs)
        others = IMAGES[::-1]
        is_own = (images == IMAGES).all(axis=(0, 3))
        assert np.array_equal(np.where(is_own[None, :, :, None], IMAGES, others), images)
        rows, columns = ~is_own.all(axis=1), ~is_own.all(axis=0)
        assert np.array_equal(~is_own, rows[:, None] & columns[None, :])
        assert float(found.own) == pytest.approx(is_own.mean(), abs=1e-6)
        shares.append(float(found.own))
    assert len({round(share, 3) for share in shares}) > 5


def test_with_both_a_batch_is_mixed_or_cut():
    blend = augmentation(["mix", "cut"], signature(IMAGES.shape))
    kinds = set()
    for _ in range(20):
        (images,) = (np.asarray(tensor) for tensor in blend([IMAGES]).inputs)
        is_own, is_others = (
            np.isclose(images, one).all(axis=(0, 3)) for one in (IMAGES, IMAGES[::-1])
        )
        kinds.add("cut" if (is_own | is_others).all() else "mix")
    assert kinds == {"mix", "cut"}


def test_where_nothing_is_mixed_no_share_is_told():
    assert augmentation(["flip"], signature((None, 16, 8, 2)))([IMAGES]).own is None


@pytest.mark.parametrize(
    ("kinds", "given", "said"),
    [
        (
            ["melt"],
            signature((None, 8, 8, 1)),
            "no augmentation 'melt'; there are: flip, shift, mix, cut",
        ),
        (["flip"], signature((None, 8)), "no input is one"),
        (["cut"], signature((None, 8), (None, 8, 8, 1)), "not all inputs are images"),
        (["flip"], signature((None, 8, 8, 1), output=(None, 8, 8, 1)), "is an image itself"),
    ],
)
def test_what_can_not_be_changed_is_refused(kinds, given, said):
    with pytest.raises(ParameterError, match=said):
        augmentation(kinds, given)


def test_words_by_their_number_can_not_be_mixed():
    words = Signature(
        (TensorSpec("words", (None, 8), "int32"),), (TensorSpec("y", (None, 3), "float32"),)
    )
    with pytest.raises(ParameterError, match="'words' is int32, and no image: what lies between"):
        augmentation(["mix"], words)


def test_a_model_that_looks_words_up_takes_no_mixtures_though_keras_calls_them_float32():
    net = keras.Sequential(
        [
            keras.Input((4,), name="words"),
            keras.layers.Embedding(10, 3, name="looked_up"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, name="y"),
        ]
    )
    samples = Samples({"words": np.zeros((16, 4), "float32")}, {"y": np.zeros((16, 2), "float32")})
    with pytest.raises(ParameterError, match="'looked_up' looks up numbers"):
        fine_tune(net, samples, signature_of(net), FineTuning(augment=("mix",)))


def test_mixed_pixels_stay_whole_numbers():
    pixels = np.arange(6 * 4 * 4 * 1, dtype="uint8").reshape(6, 4, 4, 1)
    mix = augmentation(
        ["mix"], Signature((TensorSpec("x", (None, 4, 4, 1), "uint8"),), (TensorSpec("y", (None, 3), "float32"),))
    )  # fmt: skip
    found = mix([pixels])
    own = float(found.own)
    wanted = own * pixels.astype("float64") + (1 - own) * pixels[::-1]
    assert np.asarray(found.inputs[0]).dtype == np.uint8
    # Half of one for rounding, and what float32 is off by.
    np.testing.assert_allclose(found.inputs[0], wanted, atol=0.5 + 1e-4, rtol=0)


def test_both_targets_are_wanted_of_a_mixture():
    """A line through mixed samples is the line through the samples only where targets are mixed alike."""
    x = np.random.default_rng(0).normal(size=(512, 3)).astype("float32")
    line = np.array([[1.0], [-2.0], [0.5]], "float32")
    net = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(1, name="y")])
    fine_tune(
        net, Samples({"x": x}, {"y": x @ line}), signature_of(net),
        FineTuning(epochs=30, batch_size=32, learning_rate=0.05, augment=("mix",)),
    )  # fmt: skip
    np.testing.assert_allclose(net.get_weights()[0], line, atol=0.1)


def test_the_teacher_answers_to_the_images_as_they_were_changed():
    """A teacher that tells left from right: a student of mirrored images learns it only from answers to these."""
    x = np.random.default_rng(0).normal(size=(256, 4, 4, 1)).astype("float32")
    weights = np.random.default_rng(1).normal(size=(16, 1)).astype("float32")

    def net(seed):
        keras.utils.set_random_seed(seed)
        layers = [
            keras.Input((4, 4, 1), name="x"),
            keras.layers.Flatten(),
            keras.layers.Dense(1, name="y"),
        ]
        return keras.Sequential(layers)

    teacher, student = net(0), net(5)
    teacher.set_weights([weights, np.zeros(1, "float32")])
    found = fine_tune(
        student, Samples({"x": x}), signature_of(student),
        FineTuning(epochs=40, batch_size=16, learning_rate=0.03, augment=("flip", "shift")), teacher=teacher,
    )  # fmt: skip
    assert found.losses[-1] < 0.02 * found.losses[0]
    np.testing.assert_allclose(student.get_weights()[0], weights, atol=0.1)
    assert len(student.trainable_weights) == 2  # the teacher is no part of it
