"""A model as calls: each once, through nested models, and built anew without touching the one that was given."""

import keras
import numpy as np
from keras import layers

from strop.graph.keras_calls import chains_of, functional_of, steps_of
from strop.train.rebuilding import copied
from tests import models


def test_calls_of_nested_models_stand_in_line_and_shared_layers_once_each():
    _, steps = steps_of(copied(functional_of(models.nested())).model)

    operations = {id(step.operation) for step in steps}
    assert len(operations) < len(steps)  # the shared model's layers are called twice
    assert all(not hasattr(step.operation, "layers") for step in steps)
    assert any(len(chain) == 2 for chain in chains_of(steps))
    produced = [edge for step in steps for edge in step.results]
    for step in steps:
        for edge in step.edges:
            assert edge.is_input or edge in produced
            assert step in edge.readers


def test_operations_without_weights_are_other_ones_in_the_copy(tmp_path):
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Dense(2, name="y")((x + 3.0) * x))
    names = [operation.name for operation in model.operations]

    _, steps = steps_of(copied(functional_of(model)).model)
    for step in steps:
        step.operation.name = "another"

    assert [operation.name for operation in model.operations] == names
    model.save(tmp_path / "model.keras")
    given = np.ones((2, 3), np.float32)
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(again(given)), np.asarray(model(given)))


def test_calls_are_made_anew_on_other_tensors():
    x = keras.Input((3,), name="x")
    model = keras.Model(x, layers.Concatenate(name="y")([x, x * 2.0]))
    _, steps = steps_of(copied(functional_of(model)).model)

    found = {edge: np.float32([[1, 2, 3]]) for step in steps for edge in step.edges}
    for step in steps:
        (result,) = step.results
        found[result] = np.asarray(step.call(found.__getitem__))

    assert found[steps[-1].results[0]].tolist() == [[1, 2, 3, 2, 4, 6]]


def test_a_class_that_convolves_in_its_own_way_is_not_taken_for_keras():
    class Own(layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, kernel / 2)

    x = keras.Input((4, 4, 3), name="x")
    model = keras.Model(x, layers.Conv2D(2, 3)(Own(2, 1)(x)))
    with keras.saving.custom_object_scope({"Own": Own}):
        _, (own, plain) = steps_of(copied(functional_of(model)).model)

    assert (own.kind, own.kinds) == ("", set())
    assert plain.kind == "Conv2D"
