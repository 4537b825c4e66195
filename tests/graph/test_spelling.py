import numpy as np
import pytest
import tensorflow as tf

from strop.core.signature import Signature, TensorSpec
from strop.graph import spelling
from strop.graph.frozen import freeze, imported
from strop.graph.keras_models import by_name, signature_of
from tests import models


def spec(name, *shape, dtype="float32"):
    return TensorSpec(name, shape, dtype)


def run(definition, graph, *inputs):
    function = tf.function(imported(definition, graph.inputs, graph.outputs))
    return [result.numpy() for result in function(*map(tf.constant, inputs))]


def copied(graph):
    definition = type(graph.definition)()
    definition.CopyFrom(graph.definition)
    return definition


def operations(definition):
    return [node.op for node in definition.node]


def frozen(model):
    signature = signature_of(model)
    return freeze(lambda *tensors: by_name(model, tensors, signature), signature)


@pytest.mark.parametrize("steps", [16, None])
def test_a_dense_layer_on_a_sequence_is_one_product_of_known_shape(steps):
    model = models.transformer(steps)
    x = np.arange(32, dtype=np.int32).reshape(2, 16)

    graph = frozen(model)  # freezing spells products

    assert "MatMul" in operations(graph.definition)  # the last layer's, which has no sequence
    assert not {"Prod", "Pack"} & set(operations(graph.definition))
    np.testing.assert_allclose(run(graph.definition, graph, x)[0], np.asarray(model(x)), atol=1e-5)


def test_a_product_that_is_reshaped_otherwise_is_left_alone():
    signature = Signature((spec("x", None, 4, 6),), (spec("y", None, 2, 10),))
    weights = tf.ones([6, 5])

    def function(x):
        product = tf.matmul(tf.reshape(x, [-1, 6]), weights)
        return [tf.reshape(product, [-1, 2, 10])]

    graph = freeze(function, signature)

    assert "MatMul" in operations(graph.definition)


@pytest.mark.parametrize(
    ("equation", "left", "right"),
    [
        ("BTNH,BSNH->BNTS", (2, 3, 4, 5), (2, 6, 4, 5)),  # attention's scores
        ("BNTS,BSNH->BTNH", (2, 4, 3, 6), (2, 6, 4, 5)),  # and its answers
        ("aecd,abcd->acbe", (2, 6, 4, 5), (2, 3, 4, 5)),
        ("ij,jk->ik", (2, 3), (3, 4)),
        ("ij,jk->ki", (2, 3), (3, 4)),
        ("bij,bkj->bik", (2, 3, 4), (2, 5, 4)),
    ],
)
def test_an_einsum_of_one_sum_becomes_a_product(equation, left, right):
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in (left, right))
    signature = Signature(
        (spec("a", *left), spec("b", *right)), (spec("y", *np.einsum(equation, a, b).shape),)
    )
    graph = freeze(lambda a, b: [tf.raw_ops.Einsum(inputs=[a, b], equation=equation)], signature)
    definition = copied(graph)

    found = spelling.spell_einsum(definition)

    assert found == 1
    assert "Einsum" not in operations(definition)
    # At most six products are summed, each rounded once, in another order.
    np.testing.assert_allclose(
        run(definition, graph, a, b)[0], np.einsum(equation, a, b), atol=6 * 2.0**-23 * 10
    )


@pytest.mark.parametrize(
    ("equation", "left", "right"),
    [
        ("ij,ij->i", (2, 3), (2, 3)),  # no rows of its own on either side
        ("ij,ij->", (2, 3), (2, 3)),
        ("ijk,jkl->il", (2, 3, 4), (3, 4, 5)),  # two sums
        ("i,j->ij", (2,), (3,)),  # none
    ],
)
def test_an_einsum_that_is_more_is_left_alone(equation, left, right):
    signature = Signature((spec("a", *left), spec("b", *right)), (spec("y", None),))
    graph = freeze(lambda a, b: [tf.raw_ops.Einsum(inputs=[a, b], equation=equation)], signature)

    assert spelling.spell_einsum(copied(graph)) == 0


def test_gelu_is_written_by_erf_to_rounding():
    x = np.linspace(-8, 8, 1001, dtype=np.float32)
    signature = Signature((spec("x", None),), (spec("y", None),))
    graph = freeze(lambda x: [tf.nn.gelu(x)], signature)
    definition = copied(graph)

    found = spelling.spell_gelu(definition)

    assert found == 1
    assert "Erfc" not in operations(definition)
    # Where 1 + erf cancels, what is left is off by half a unit in the last place of 1, times |x|/2.
    off = np.abs(run(definition, graph, x)[0] - run(graph.definition, graph, x)[0])
    assert np.all(off <= 2.0**-23 * (1 + np.abs(x)))


def test_erfc_by_itself_is_written_by_erf_to_rounding():
    x = np.linspace(-5, 5, 1001, dtype=np.float32)
    signature = Signature((spec("x", None),), (spec("y", None),))
    graph = freeze(lambda x: [tf.math.erfc(x)], signature)
    definition = copied(graph)

    assert spelling.spell_gelu(definition) == 0
    assert spelling.spell_out_erfc(definition) == 1
    # Both functions are approximations within two units in the last place of 1.
    np.testing.assert_allclose(
        run(definition, graph, x)[0], run(graph.definition, graph, x)[0], atol=4 * 2.0**-23
    )


def test_a_lookup_that_wraps_negative_places_is_plain():
    graph = frozen(models.bidirectional_lstm())
    definition = copied(graph)
    x = np.arange(12, dtype=np.int32)[None]

    found = spelling.spell_lookup(definition)

    assert found == 1
    np.testing.assert_array_equal(run(definition, graph, x)[0], run(graph.definition, graph, x)[0])
