import keras
import numpy as np
import pytest
from keras import layers

from strop.core.model import Form
from strop.graph.describing import describe
from strop.graph.quiet import quiet
from strop.graph.reading import Options, read
from strop.passes.convert.graph_def import Freeze
from strop.passes.convert.litert import ConvertToLiteRT
from strop.passes.convert.onnx import ConvertToONNX
from strop.passes.convert.openvino import ConvertToOpenVINO
from tests.passes.convert.conftest import Workshop

WAYS = {
    "keras": (),
    "graph_def": (Freeze(),),
    "litert": (Freeze(), ConvertToLiteRT()),
    "onnx": (Freeze(), ConvertToONNX()),
    "openvino": (Freeze(), ConvertToOpenVINO()),
}


@pytest.fixture
def workshop(tmp_path):
    with quiet():
        yield Workshop(tmp_path)


def convnet(batch=None):
    x = keras.Input(batch_shape=(batch, 8, 8, 3), name="x")
    y = layers.Conv2D(4, 3, strides=2, padding="same")(x)  # 4·4·4 outputs · 3·3·3
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(y)  # 4·4·8 outputs · 3·3
    y = layers.Conv2DTranspose(5, 2, strides=2)(y)  # 4·4·8 inputs · 2·2·5
    return keras.Model(x, layers.Dense(6)(layers.Flatten()(y)))  # 6 outputs · 8·8·5


CONVNET = 4 * 4 * 4 * 27 + 4 * 4 * 8 * 9 + 4 * 4 * 8 * 20 + 6 * 320


def attention():
    x = keras.Input((6, 8), name="x")
    y = layers.MultiHeadAttention(2, 4)(
        x, x
    )  # q, k, v, out: 6·8·8 each; scores and mix: 2·6·6·4 each
    return keras.Model(x, layers.Dense(3)(y))  # 6·3 outputs · 8


ATTENTION = 4 * 6 * 8 * 8 + 2 * 2 * 6 * 6 * 4 + 6 * 3 * 8


def recurrent(layer, steps=7):
    x = keras.Input((steps, 5), name="x")
    return keras.Model(x, layer(x))


LSTM = 7 * (5 * 12 + 3 * 12)  # steps · (kernel + recurrent kernel)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("build", "macs"), [(convnet, CONVNET), (attention, ATTENTION)])
def test_every_form_counts_the_same(workshop, way, build, macs):
    made = workshop.apply(workshop.keras(build()), *WAYS[way])

    assert describe(made).macs == macs


@pytest.mark.parametrize("way", WAYS)
def test_a_fixed_batch_is_counted_a_sample(workshop, way):
    made = workshop.apply(workshop.keras(convnet(batch=2)), *WAYS[way])

    assert describe(made).macs == CONVNET


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (layers.LSTM(3), LSTM),
        (layers.GRU(3), LSTM * 3 // 4),  # three gates, not four
        (layers.Bidirectional(layers.LSTM(3)), 2 * LSTM),
    ],
)
def test_a_loop_over_time_is_counted_step_by_step(workshop, layer, macs):
    source = workshop.keras(recurrent(layer))

    assert describe(source).macs == macs
    assert describe(workshop.apply(source, Freeze(batch=1))).macs == macs


@pytest.mark.parametrize("layer", [layers.LSTM(3), layers.Bidirectional(layers.LSTM(3))])
def test_a_recurrent_operation_is_counted_in_onnx(workshop, layer):
    source = workshop.keras(recurrent(layer))

    made = workshop.apply(source, Freeze(), ConvertToONNX())

    assert describe(made).macs == describe(source).macs


def test_a_recurrent_operation_is_counted_in_openvino(workshop):
    source = workshop.keras(recurrent(layers.LSTM(3)))

    made = workshop.apply(source, Freeze(), ConvertToONNX(), ConvertToOpenVINO())

    assert describe(made).macs == LSTM


def test_what_is_written_out_is_counted_in_litert(workshop):
    source = workshop.keras(recurrent(layers.LSTM(3)))

    made = workshop.apply(source, Freeze(unroll=True), ConvertToLiteRT())

    assert describe(made).macs == LSTM


@pytest.mark.parametrize(
    "steps", [(Freeze(), ConvertToOpenVINO()), (Freeze(batch=1), ConvertToLiteRT())]
)
def test_a_loop_whose_rounds_are_not_shown_is_not_known_rather_than_nothing(workshop, steps):
    made = workshop.apply(workshop.keras(recurrent(layers.LSTM(3))), *steps)

    assert describe(made).macs is None


@pytest.mark.parametrize("way", WAYS)
def test_a_free_dimension_leaves_the_count_unknown(workshop, way):
    made = workshop.apply(workshop.keras(recurrent(layers.Dense(4), steps=None)), *WAYS[way])

    assert describe(made).macs is None


def test_a_saved_model_is_described_as_the_model_it_came_from(workshop, tmp_path):
    convnet().export(str(tmp_path / "exported"), verbose=False)

    model = read(tmp_path / "exported", workshop.new())

    assert model.form is Form.SAVED_MODEL
    assert describe(model).macs == CONVNET


def test_parameters_are_those_that_keras_counts(workshop):
    model = convnet()

    found = describe(workshop.keras(model))

    assert found.parameters == model.count_params()
    assert found.operations["Conv2D"] == 1


def test_a_lambda_that_was_allowed_can_be_described(tmp_path):
    x = keras.Input((4,))
    keras.Model(x, layers.Dense(2)(layers.Lambda(lambda v: v * 2)(x))).save(tmp_path / "m.keras")
    model = read(tmp_path / "m.keras", tmp_path, Options(allow=frozenset({"lambda"})))

    assert describe(model).macs == 8


def test_a_loop_with_an_end_of_its_own_is_not_known(tmp_path):
    import tensorflow as tf

    weights = tf.constant(np.ones((4, 4), np.float32))

    def until_large(x):
        return tf.while_loop(
            lambda i, v: tf.logical_and(i < 9, tf.reduce_sum(v) < 5.0),
            lambda i, v: (i + 1, v @ weights),
            (0, x),
        )[1]

    spec = tf.TensorSpec([None, 4], tf.float32, name="x")
    traced = tf.function(until_large, autograph=False).get_concrete_function(spec)
    (tmp_path / "m.pb").write_bytes(traced.graph.as_graph_def().SerializeToString())

    assert describe(read(tmp_path / "m.pb", tmp_path)).macs is None
