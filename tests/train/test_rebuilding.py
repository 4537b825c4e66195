"""A model copied layer by layer is the same model again, and tells where its layers stand."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from strop.core.errors import ModelError
from strop.graph.quiet import quiet
from strop.train.rebuilding import Use, copied, rebuilt


@pytest.fixture(autouse=True)
def _silence():
    keras.utils.set_random_seed(0)
    with quiet():
        yield


def drawn(*shape):
    return np.random.default_rng(5).normal(size=shape).astype("float32")


def twice():
    """An inner model that stands in two places, once within another."""
    deep = layers.Dense(8, name="deep")
    inner = keras.Sequential([keras.Input((8,)), deep], name="inner")
    between = keras.Input((8,))
    middle = keras.Model(between, inner(between) + between, name="middle")
    left, right = keras.Input((8,), name="left"), keras.Input((8,), name="right")
    y = layers.Dense(4, name="y")(middle(left) * inner(right))
    return keras.Model({"left": left, "right": right}, {"y": y}), deep


def test_a_copy_answers_alike_and_is_another():
    model, _ = twice()
    inputs = {"left": drawn(3, 8), "right": drawn(3, 8)}
    copy = copied(model)
    wanted = model(inputs)["y"]
    np.testing.assert_allclose(copy.model(inputs)["y"], wanted, atol=1e-6)
    for weight in copy.model.weights:
        weight.assign(ops.zeros_like(weight))
    np.testing.assert_array_equal(model(inputs)["y"], wanted)


def test_each_place_of_a_layer_is_told_with_its_shapes():
    model, deep = twice()
    uses = [use for use in copied(model).uses if use.layer is deep]
    assert uses == 2 * [Use(deep, (None, 8), (None, 8))]
    image = keras.Sequential([keras.Input((9, 7, 3)), layers.Conv2D(4, 3, strides=2, name="c")])
    assert copied(image).uses == (Use(image.layers[0], (None, 9, 7, 3), (None, 4, 3, 4)),)


def test_a_copy_tells_what_stands_for_each_layer():
    model, deep = twice()
    copy = copied(model)
    found = copy.layers[id(deep)]
    assert found is not deep
    assert found.name == "deep"
    np.testing.assert_array_equal(found.kernel, deep.kernel)


def test_a_sequential_model_stays_one():
    model = keras.Sequential([keras.Input((8,), name="x"), layers.Dense(4)], name="row")
    made = rebuilt(model, {})
    assert isinstance(made, keras.Sequential)
    assert (made.name, made.inputs[0].name) == ("row", "x")


def test_what_is_frozen_stays_frozen_and_nothing_else():
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(8, trainable=False, name="frozen"), layers.Dense(8)]
    )
    made = rebuilt(model, {})
    assert [layer.trainable for layer in made.layers] == [False, True]
    assert made.trainable
    model.trainable = False
    model.layers[1].trainable = True  # of a model that is frozen as a whole
    made = rebuilt(model, {})
    assert not made.trainable
    assert made.layers[1].trainable


def test_what_a_layer_learnt_of_data_comes_along():
    normalization, table = layers.Normalization(), layers.StringLookup()
    normalization.adapt(5 + 2 * drawn(100, 8))
    table.adapt(["a", "b", "b"])
    numbers, words = keras.Input((8,)), keras.Input((1,), dtype="string")
    model = keras.Model([numbers, words], [normalization(numbers), table(words)])
    given = [ops.convert_to_tensor(x) for x in (5 + 2 * drawn(3, 8), [["a"], ["b"], ["c"]])]
    for wanted, found in zip(model(given), rebuilt(model, {})(given), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_inputs_keep_their_dtypes_and_sizes():
    tokens = keras.Input(batch_shape=(2, 5), dtype="int32", name="tokens")
    made = rebuilt(keras.Model(tokens, layers.Embedding(9, 4)(tokens)), {})
    (tensor,) = made.inputs
    assert (tensor.name, tensor.dtype, tensor.shape) == ("tokens", "int32", (2, 5))


def test_an_operation_on_a_variable_of_another_layer_is_refused_by_name():
    tokens = keras.Input((5,), dtype="int32")
    table = layers.Embedding(40, 24, name="table")
    scores = ops.multiply(table(tokens)[:, :1], table._embeddings)
    model = keras.Model(tokens, scores)
    operation = model.operations[-1]
    with pytest.raises(ModelError) as refused:
        copied(model)
    assert str(refused.value).startswith(
        f"the operation '{operation.name}' computes with the variable 'table/embeddings', which is another's."
    )


def test_models_whose_own_code_calls_their_layers_are_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ModelError, match="are called by code of its own class, Own"):
        copied(Own())
