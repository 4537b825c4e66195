import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.core.errors import SamplesError
from strop.core.signature import Signature, TensorSpec

names = st.text(st.characters(min_codepoint=33, max_codepoint=1000), min_size=1, max_size=8)
shapes = st.lists(st.none() | st.integers(1, 9), max_size=4).map(tuple)
dtypes = st.sampled_from(["float32", "float16", "int8", "int64", "bool", "str"])
specs = st.lists(
    st.builds(TensorSpec, names, shapes, dtypes), max_size=4, unique_by=lambda spec: spec.name
)
signatures = st.builds(lambda i, o: Signature(tuple(i), tuple(o)), specs, specs)

WIDE = TensorSpec("wide", (None, 8), "float32")
DEEP = TensorSpec("deep", (None, 3), "int32")
SCORE = TensorSpec("score", (None, 1), "float32")
TWO = Signature((WIDE, DEEP), (SCORE,))


def given_arrays(rows=2):
    return {"wide": np.zeros((rows, 8), np.float32), "deep": np.zeros((rows, 3), np.int32)}


@given(signatures)
def test_json_brings_a_signature_back(signature):
    assert Signature.from_json(signature.to_json()) == signature


@given(st.permutations(["wide", "deep"]))
def test_inputs_by_name_come_in_the_signatures_order(order):
    arrays = given_arrays()

    arranged = TWO.arrange({name: arrays[name] for name in order})

    assert list(arranged) == ["wide", "deep"]
    assert all(arranged[name] is arrays[name] for name in arrays)


def test_a_sequence_is_taken_in_order_and_a_lone_array_for_the_only_input():
    arrays = given_arrays()
    assert list(TWO.arrange(list(arrays.values()))) == ["wide", "deep"]
    alone = Signature((WIDE,), (SCORE,))
    assert alone.arrange(arrays["wide"])["wide"] is arrays["wide"]


def test_wrong_names_are_shown_beside_the_right_ones():
    with pytest.raises(SamplesError) as caught:
        TWO.arrange({"wide": np.zeros((1, 8)), "dep": np.zeros((1, 3))})

    assert str(caught.value) == (
        "the inputs are named 'wide', 'dep'; the model takes 'wide', 'deep'."
    )


def test_a_wrong_number_of_arrays_is_told_with_the_names():
    with pytest.raises(SamplesError) as caught:
        TWO.arrange(np.zeros((1, 8)))

    assert str(caught.value) == "1 input arrays were given; the model takes 2: 'wide', 'deep'."


def test_a_wrong_shape_is_told_with_the_right_one():
    with pytest.raises(SamplesError) as caught:
        TWO.check({**given_arrays(), "wide": np.zeros((2, 7), np.float32)})

    assert str(caught.value) == (
        "the input 'wide' has shape (2, 7).\n"
        "The model takes wide: float32[?,8], the first dimension being the batch."
    )


def test_fractions_are_not_cut_to_whole_numbers():
    with pytest.raises(SamplesError) as caught:
        TWO.check({**given_arrays(), "deep": np.full((2, 3), 0.5)})

    assert str(caught.value) == (
        "the input 'deep' has dtype float64.\n"
        "The model takes int32, and casting would lose what is there."
    )


@pytest.mark.parametrize("dtype", ["int64", "uint8", "int32"])
def test_whole_numbers_that_fit_are_taken_whatever_their_width(dtype):
    TWO.check({**given_arrays(), "deep": np.full((2, 3), 100, dtype)})


def test_whole_numbers_that_do_not_fit_are_refused():
    small = Signature((TensorSpec("codes", (None,), "uint8"),), (SCORE,))
    with pytest.raises(SamplesError, match="codes"):
        small.check({"codes": np.array([300], np.int64)})


def test_inputs_of_different_lengths_are_refused():
    with pytest.raises(SamplesError) as caught:
        TWO.check({**given_arrays(2), "deep": np.zeros((3, 3), np.int32)})

    assert str(caught.value) == "the inputs have different lengths: {'wide': 2, 'deep': 3}."


@given(shapes, st.lists(st.integers(1, 9), max_size=4).map(tuple))
def test_a_spec_accepts_what_differs_in_free_dimensions_alone(wanted, shape):
    accepts = TensorSpec("x", wanted, "float32").accepts(shape)

    filled = tuple(
        have if want is None else want for want, have in zip(wanted, shape, strict=False)
    )
    assert accepts == (len(wanted) == len(shape) and filled == shape)


def test_free_dimensions_leave_the_batch_out_and_can_be_fixed():
    free = Signature((TensorSpec("tokens", (None, None, 4), "int32"),), (SCORE,))

    assert free.free_dimensions() == [("tokens", 1)]
    assert free.with_shapes({"tokens": (None, 16, 4)}).free_dimensions() == []


def test_the_batch_is_fixed_only_where_all_inputs_agree():
    fixed = TWO.with_shapes({"wide": (4, 8), "deep": (4, 3)})
    assert (fixed.batch, TWO.batch) == (4, None)
