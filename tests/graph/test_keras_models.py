import numpy as np
import pytest

from strop.core.errors import ModelError
from strop.graph.keras_models import arranged, by_name, signature_of
from tests import models


def test_names_are_those_that_the_file_keeps():
    assert str(signature_of(models.convnet())) == (
        "(image: float32[?,12,12,3]) -> (label: float32[?,5])"
    )


def test_dicts_are_named_by_their_keys():
    signature = signature_of(models.two_in_two_out())

    assert str(signature) == (
        "(deep: int32[?,6], wide: float32[?,8]) -> (kind: float32[?,3], score: float32[?,1])"
    )


def test_outputs_of_one_layer_are_numbered():
    import keras

    steps = keras.Input((4, 2), name="steps")
    model = keras.Model(steps, keras.layers.LSTM(3, return_state=True, name="lstm")(steps))

    assert signature_of(model).output_names == ("lstm_0", "lstm_1", "lstm_2")


def test_structures_within_structures_are_flattened_and_rebuilt_alike():
    import keras

    a, b, c = (keras.Input((2,), name=name) for name in ("a", "b", "single"))
    model = keras.Model({"pair": [a, b], "single": c}, [a - b, {"sum": a + c}])
    signature = signature_of(model)
    ones, twos, fours = (np.full((1, 2), value, np.float32) for value in (1, 2, 4))

    difference, total = by_name(model, [ones, twos, fours], signature)

    assert signature.input_names == ("pair_0", "pair_1", "single")
    assert np.all(np.asarray(difference) == -1)
    assert np.all(np.asarray(total) == 5)


def test_a_subclassed_model_is_known_by_its_first_call():
    model = models.subclassed()

    assert str(signature_of(model)) == "(input: float32[?,5]) -> (output: float32[?,3])"


def test_a_single_input_is_not_wrapped():
    model = models.convnet()
    image = np.zeros((1, 12, 12, 3), np.float32)

    assert arranged(model, [image], signature_of(model)) is image


def test_a_model_that_was_never_called_is_refused():
    import keras

    model = keras.Sequential([keras.layers.Dense(2)], name="young")

    with pytest.raises(ModelError) as caught:
        signature_of(model)

    assert str(caught.value) == (
        "the model 'young' was never called, so its inputs are not known.\n"
        "Call it once on data of the right shape, or begin it with a keras.Input.\n"
        "  model(sample_batch)"
    )
