"""Samples drawn from Python objects: what they may be made of, and what is wrong with them told."""

import itertools
import sys

import numpy as np
import pytest

from strop.core.errors import SamplesError
from strop.core.signature import Signature, TensorSpec
from strop.data import raw
from strop.data.reading import read

SCORES = TensorSpec("scores", (None, 4), "float32")
ONE = Signature((TensorSpec("image", (None, 2, 3), "float32"),), (SCORES,))
THREE = Signature(tuple(TensorSpec(n, (None, 2), "float32") for n in "abc"), (SCORES,))
GREY = Signature((TensorSpec("image", (None, 2, 3, 1), "float32"),), (SCORES,))
X = np.arange(42, dtype="float32").reshape(7, 2, 3)
Y = np.arange(7) % 4
WEIGHTS = np.ones(7)
LEFT_OUT = "sample weights were given and are not used"


def refusal(given, signature=ONE):
    with pytest.raises(SamplesError) as caught:
        read(given, signature)
    return str(caught.value)


def is_all(found):
    np.testing.assert_array_equal(found.whole.inputs["image"].reshape(X.shape), X)
    np.testing.assert_array_equal(found.whole.targets["scores"], Y)
    return True


@pytest.mark.parametrize("sizes", [[7], [3, 4], [1] * 7])
def test_batches_are_joined_in_order(sizes):
    starts = np.cumsum([0, *sizes])
    batches = [(X[a:b], Y[a:b]) for a, b in itertools.pairwise(starts)]
    found = read(iter(batches), ONE)
    assert is_all(found)
    assert found.notes == ()


def test_single_samples_are_joined_too():
    assert is_all(read(zip(X, Y, strict=True), ONE))


@pytest.mark.parametrize("signature", [ONE, GREY])
@pytest.mark.parametrize("step", [None, 3])
def test_greyscale_may_come_without_its_channel(signature, step):
    """Single and in batches: what has as many axes as one coloured sample is no single one here."""
    elements = (
        zip(X, Y, strict=True)
        if step is None
        else [(X[i : i + step], Y[i : i + step]) for i in range(0, 7, step)]
    )
    assert is_all(read(iter(elements), signature))


def test_elements_may_name_their_inputs_in_any_order():
    signature = Signature(
        (TensorSpec("a", (None, 2, 3), "float32"), TensorSpec("b", (None, 1), "float32")),
        (SCORES,),
    )
    elements = [({"b": np.ones(1), "a": x}, y) for x, y in zip(X, Y, strict=True)]
    found = read(iter(elements), signature).whole
    np.testing.assert_array_equal(found.inputs["a"], X)
    assert found.inputs["b"].shape == (7, 1)


@pytest.mark.parametrize("given", [(X, Y, WEIGHTS), [(X[:3], Y[:3], WEIGHTS[:3]), (X[3:], Y[3:], WEIGHTS[3:])]])  # fmt: skip
def test_sample_weights_are_left_out_and_told(given):
    found = read(given if isinstance(given, tuple) else iter(given), ONE)
    assert is_all(found)
    assert found.notes == (LEFT_OUT,)


def test_three_inputs_without_targets_are_no_weights():
    arrays = tuple(np.full((5, 2), i) for i in range(3))
    for given in (arrays, iter([arrays])):
        found = read(given, THREE)
        assert found.notes == ()
        assert [found.whole.inputs[n][0, 0] for n in "abc"] == [0, 1, 2]
    weighted = read((arrays, Y[:5], WEIGHTS[:5]), THREE)
    assert weighted.notes == (LEFT_OUT,)
    np.testing.assert_array_equal(weighted.whole.targets["scores"], Y[:5])


def test_batches_of_different_lengths_are_told_with_their_shapes():
    free = Signature((TensorSpec("tokens", (None, None), "int32"),), (SCORES,))
    told = refusal(iter([np.zeros((2, 5), "int32"), np.zeros((2, 9), "int32")]), free)
    assert told == (
        "the samples: the inputs come in different shapes, (2, 5) and (2, 9).\n"
        "All samples need one shape; a dataset of texts is padded to one length, not each batch to its own.\n"
        "  dataset.padded_batch(32, padded_shapes=...)"
    )


def test_targets_of_different_shapes_are_told():
    told = refusal(iter([(X[:3], np.zeros((3, 4))), (X[3:], np.zeros((4, 5)))]))
    assert "the targets come in different shapes, (3, 4) and (4, 5)" in told


@pytest.mark.parametrize(
    "elements",
    [
        [(X[:3], Y[:3]), X[3:]],
        [{"image": X[:3]}, {"picture": X[3:]}],
        [{"image": X[:3]}, X[3:]],
        [((X[:3],), Y[:3]), ((X[3:], X[3:]), Y[3:])],
    ],
)
def test_elements_made_differently_are_told(elements):
    assert "element 2 is made otherwise than the first" in refusal(iter(elements))


@pytest.mark.parametrize("element", [{}, ()])
def test_elements_of_nothing_are_told(element):
    assert "element 1 holds no array" in refusal(iter([element]))


def test_an_error_while_drawing_is_told():
    def draw():
        yield X, Y
        raise KeyError("the file of the second part")

    told = refusal(draw())
    assert told.startswith("the samples failed while they were drawn: KeyError: 'the file of")


def test_an_empty_source_is_told():
    assert "is empty" in refusal(iter([]))


def test_an_endless_source_is_drawn_from_until_there_are_enough(monkeypatch):
    def draw():
        while True:
            yield X, Y

    monkeypatch.setattr(raw, "MOST_SAMPLES", 20)
    found = read(draw(), ONE)
    assert len(found.whole) == 21
    assert found.notes == ("drawing stopped at 21 samples, which is what there is room for",)


def test_large_samples_are_drawn_until_memory_is_full(monkeypatch):
    monkeypatch.setattr(raw, "MOST_BYTES", 3 * X[0].nbytes)
    found = read(zip(X.astype("uint8"), Y, strict=True), ONE)
    assert len(found.whole) == 3


def test_a_source_that_ends_where_there_is_no_more_room_was_not_stopped(monkeypatch):
    monkeypatch.setattr(raw, "MOST_SAMPLES", 7)
    assert read(zip(X, Y, strict=True), ONE).notes == ()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that writes a module of the user's own and gives its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(body):
        name = f"own_samples_{tmp_path.name}"
        sys.modules.pop(name, None)
        (tmp_path / f"{name}.py").write_text(f"import numpy as np\n{body}\n")
        return name

    return write


MADE = "X = np.arange(42, dtype='float32').reshape(7, 2, 3); Y = np.arange(7) % 4\n"


@pytest.mark.parametrize(
    "returned",
    ["X, Y", "{'image': X, 'y': Y}", "{'x': X, 'y': Y}", "X, Y, np.ones(7)", "iter([(X, Y)])"],
)
def test_a_function_of_the_users_may_return_any_of_them(module, returned):
    assert is_all(read(f"{module(f'{MADE}def load(): return {returned}')}:load", ONE))


def test_a_function_may_return_what_is_for_training_and_what_is_for_testing(module):
    body = f"{MADE}def load(): return (X, Y), (X[:2], Y[:2])"
    found = read(f"{module(body)}:load", ONE)
    assert (len(found.train), len(found.test)) == (7, 2)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("def load(): raise OSError('no disk')", "failed: OSError: no disk"),
        ("def load(): return 7", "is a int"),
        ("def lead(): return 7", "can't be used: AttributeError"),
        ("import absent_module", "can't be used: ModuleNotFoundError"),
    ],
)
def test_a_function_that_gives_nothing_usable_is_told(module, body, told):
    assert told in refusal(f"{module(body)}:load")


@pytest.mark.slow  # imports TensorFlow
@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("weights", [False, True])
def test_a_saved_dataset_is_read(tmp_path, batch, weights):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((X, Y, WEIGHTS) if weights else (X, Y))
    dataset = dataset.batch(batch) if batch else dataset
    dataset.save(str(tmp_path / "saved"))

    found = read(tmp_path / "saved", ONE)

    assert is_all(found)
    assert found.notes == ((LEFT_OUT,) if weights else ())


@pytest.mark.slow  # imports TensorFlow
def test_a_dataset_padded_batch_by_batch_is_told():
    import tensorflow as tf

    texts = tf.ragged.constant([[1, 2], [3], [4, 5, 6], [7]])
    dataset = tf.data.Dataset.from_tensor_slices(texts).map(lambda row: row).padded_batch(2)
    free = Signature((TensorSpec("tokens", (None, None), "int32"),), (SCORES,))
    assert "the inputs come in different shapes, (2, 2) and (2, 3)" in refusal(dataset, free)


@pytest.mark.slow  # imports TensorFlow
def test_a_saved_dataset_that_is_damaged_is_told(tmp_path):
    import tensorflow as tf

    folder = tmp_path / "saved"
    tf.data.Dataset.from_tensor_slices((X, Y)).save(str(folder))
    for part in folder.rglob("*.snapshot"):
        part.write_bytes(part.read_bytes()[:20])
    assert "saved" in refusal(folder)
