"""A model as calls: each once, through nested models, and built anew without touching the one that was given."""

import keras
import numpy as np
from keras import layers

from strop.graph.keras_calls import calls_of, functional_of, taken_apart
from strop.train.rebuilding import copied
from tests import models


def test_calls_of_nested_models_stand_in_line_and_shared_layers_once_each():
    found = calls_of(models.nested())

    operations = {id(call.operation) for call in found.calls}
    assert len(operations) < len(found.calls)  # the shared model's layers are called twice
    assert all(not hasattr(call.operation, "layers") for call in found.calls)
    assert any(len(chain) == 2 for chain in found.chains)
    for call in found.calls:
        for tensor in call.tensors:
            assert tensor in found.inputs or tensor in tensor.maker.results
            assert call in tensor.readers


def test_operations_without_weights_are_other_ones_in_the_copy(tmp_path):
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Dense(2, name="y")((x + 3.0) * x))
    names = [operation.name for operation in model.operations]

    for call in taken_apart(copied(functional_of(model)).model).calls:
        call.operation.name = "another"

    assert [operation.name for operation in model.operations] == names
    model.save(tmp_path / "model.keras")
    given = np.ones((2, 3), np.float32)
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(again(given)), np.asarray(model(given)))


def test_calls_are_made_anew_on_other_tensors():
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Concatenate(name="y")([x, x * 2.0]))
    calls = taken_apart(copied(functional_of(model)).model)

    found = {tensor: np.float32([[1, 2, 3]]) for tensor in calls.inputs}
    for call in calls.calls:
        found[call.sole_result] = np.asarray(call.again(found.__getitem__))

    assert found[calls.outputs[0]].tolist() == [[1, 2, 3, 2, 4, 6]]


def test_layers_that_were_taken_apart_remember_none_but_the_model_built_of_them():
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Dense(2, name="y")(x))
    calls = taken_apart(model)
    (call,) = calls.calls

    y = call.again({calls.inputs[0]: model.inputs[0]}.__getitem__)

    assert len(call.operation._inbound_nodes) == 1
    assert [layer.name for layer in keras.Model(model.inputs, y).layers] == ["x", "y"]


def test_a_class_that_convolves_in_its_own_way_is_not_taken_for_keras():
    class Own(layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, kernel / 2)

    x = keras.Input((4, 4, 3), name="x")
    model = keras.Model(x, layers.Conv2D(2, 3)(Own(2, 1)(x)))
    own, plain = calls_of(model).calls

    assert (own.computes_as, own.kinds) == ("", set())
    assert plain.computes_as == plain.kind == "Conv2D"


def test_a_class_that_only_adds_to_keras_computes_as_that_and_is_another():
    class Named(layers.Dense):
        pass

    x = keras.Input((4,), name="x")
    (call,) = calls_of(keras.Model(x, Named(2)(x))).calls
    assert (call.kind, call.computes_as) == ("", "Dense")
    assert "Dense" in call.kinds


def test_a_model_within_that_is_given_another_rank_stays_one_call():
    inner = keras.Sequential(
        [keras.Input((3, 1)), layers.Flatten(), layers.Dense(2)], name="inner"
    )
    x = keras.Input((3,), name="x")  # Keras adds the axis of 1
    calls = calls_of(keras.Model(x, inner(x))).calls
    assert [call.name for call in calls] == ["inner"]
