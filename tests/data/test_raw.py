"""Arrays fitted to a signature: prepared as Keras prepares them, cast, and refused with words where they don't fit."""

import numpy as np
import pytest

from strop.core.errors import ParameterError, SamplesError
from strop.core.signature import Signature, TensorSpec
from strop.data.raw import Preparation, Reader

PIXELS = Signature(
    (TensorSpec("image", (None, 2, 3, 3), "float32"),),
    (TensorSpec("kind", (None, 4), "float32"), TensorSpec("score", (None, 1), "float32")),
)
CODES = Signature((TensorSpec("image", (None, 2, 3, 3), "uint8"),), PIXELS.outputs)
X = np.random.default_rng(0).integers(0, 256, (5, 2, 3, 3)).astype("uint8")
Y = np.arange(5) % 4


def refusal(inputs, targets=None, signature=PIXELS, preparation=None):
    with pytest.raises(SamplesError) as caught:
        Reader(signature, preparation or Preparation()).samples(inputs, targets)
    return str(caught.value)


@pytest.mark.slow  # imports TensorFlow
@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_preprocessing_gives_what_keras_gives(mode, dtype):
    from keras.applications.imagenet_utils import preprocess_input

    pixels = X.astype(dtype)
    found = Reader(PIXELS, Preparation(mode=mode)).samples(pixels).inputs["image"]

    assert found.dtype == np.float32
    wanted = preprocess_input(X.astype("float32"), data_format="channels_last", mode=mode)
    # Up to 255 / 0.225 and two roundings of 2**-24 each; Keras divides where we may multiply.
    np.testing.assert_allclose(found, wanted, atol=255 * 4 * 2**-24)


def test_scaling_multiplies_every_value():
    found = Reader(PIXELS, Preparation(scale=1 / 255)).samples(X).inputs["image"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, X.astype("float32") * np.float32(1 / 255))


def test_mean_and_deviation_are_those_of_label_image():
    found = Reader(PIXELS, Preparation(mean=128, deviation=64)).samples(X).inputs["image"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, (X.astype("float32") - 128) / 64)


@pytest.mark.parametrize("deviation", [0.0, -1.0, float("nan")])
def test_nothing_is_divided_by_no_deviation(deviation):
    with pytest.raises(ParameterError, match="input_std must be above 0"):
        Preparation(deviation=deviation)


def test_many_samples_are_prepared_as_one_is():
    large = Signature((TensorSpec("image", (None, 64, 64, 3), "float32"),), PIXELS.outputs)
    few = np.random.default_rng(1).integers(0, 256, (7, 64, 64, 3)).astype("uint8")
    reader = Reader(large, Preparation(mode="torch"))
    found, once = (reader.samples(x).inputs["image"] for x in (np.concatenate([few] * 80), few))
    np.testing.assert_array_equal(found, np.concatenate([once] * 80))


def test_what_fits_already_is_not_copied():
    x = X.astype("float32")
    assert Reader(PIXELS).samples(x).inputs["image"] is x


def test_colours_are_not_prepared_where_there_are_none():
    grey = Signature((TensorSpec("image", (None, 2, 3, 1), "float32"),), PIXELS.outputs)
    told = refusal(X[..., :1], signature=grey, preparation=Preparation(mode="caffe"))
    assert told == (
        "the samples: the input 'image' has shape (5, 2, 3, 1), which has no three colours to preprocess.\n"
        "The modes torch and caffe are for shapes that end in 3."
    )


@pytest.mark.parametrize("preparation", [Preparation(scale=1 / 255), Preparation(mode="tf")])
def test_preparing_whole_numbers_is_refused_and_not_left_out_in_silence(preparation):
    assert refusal(X, signature=CODES, preparation=preparation) == (
        "scaling and preprocessing are for float inputs, and the model takes none: image: uint8[?,2,3,3].\n"
        "Give the values as the model takes them, and leave --scale, --input-mean, --input-std and "
        "--preprocess out."
    )


def test_whole_numbers_stay_as_they_are():
    assert Reader(CODES).samples(X).inputs["image"] is X


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (np.array(list("abcde")), "the target 'kind' holds <U1, not numbers"),
        (np.array([b"a"] * 5), "the target 'kind' holds |S1, not numbers"),
        (np.array([None] * 5), "the target 'kind' holds object, not numbers"),
        ({"score": np.array(list("abcde"))}, "the target 'score' holds <U1, not numbers"),
        (np.int64(3), "the target 'kind' is one number for all samples"),
        (3, "the target 'kind' is one number for all samples"),
        ([[1], [1, 2], [3], [4], [5]], "the target 'kind' can't be read as an array"),
        ([Y, Y, Y], "3 arrays of targets were given; the model has 2 outputs: 'kind', 'score'"),
        ({"kid": Y}, "targets for ['kid']"),
        (Y[:3], "3 targets for 'kind' stand beside 5 inputs"),
        (np.full(5, np.nan), "the target 'kind' holds 5 values that are NaN"),
    ],
)
def test_targets_that_do_not_fit_are_told(targets, told):
    assert told in refusal(X, targets)


def test_targets_in_a_list_are_the_outputs_in_order_and_later_ones_may_be_missing():
    reader = Reader(PIXELS)
    assert list(reader.samples(X, [Y]).targets) == ["kind"]
    both = reader.samples(X, [Y, Y / 2]).targets
    np.testing.assert_array_equal(both["score"], Y / 2)


def test_inputs_of_different_lengths_in_a_list_are_told():
    assert "the inputs can't be read as arrays" in refusal([[[1, 2], [3]]])


def test_greyscale_without_its_channel_gets_it():
    grey = Signature((TensorSpec("image", (None, 2, 3, 1), "float32"),), PIXELS.outputs)
    assert Reader(grey).samples(X[..., 0]).inputs["image"].shape == (5, 2, 3, 1)
