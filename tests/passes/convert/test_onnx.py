import onnx
import pytest

from strop.passes.convert.graph_def import Freeze
from strop.passes.convert.litert import ConvertToLiteRT
from strop.passes.convert.onnx import ConvertToONNX
from tests import models


def operations(model):
    return [node.op_type for node in onnx.load(model.path).graph.node]


@pytest.mark.parametrize("build", [models.convnet, models.two_in_two_out, models.nested])
def test_what_is_converted_answers_alike_at_any_batch(workshop, build):
    source = workshop.keras(build())

    made = workshop.apply(source, Freeze(), ConvertToONNX())

    workshop.assert_answers_alike(source, made, "onnxruntime", batch=1)
    workshop.assert_answers_alike(source, made, "onnxruntime", batch=3)


def test_a_grouped_convolution_is_one_operation(workshop):
    """Keras has XLA compile it in TensorFlow, as a function that ONNX knows nothing of."""
    import keras
    from keras import layers

    image = keras.Input((8, 8, 4), name="image")
    x = layers.Conv2D(8, 3, groups=2, name="grouped")(image)
    source = workshop.keras(keras.Model(image, layers.GlobalAveragePooling2D()(x)))

    made = workshop.apply(source, Freeze(), ConvertToONNX())

    assert operations(made).count("Conv") == 1
    workshop.assert_answers_alike(source, made, "onnxruntime", batch=3)


def test_inputs_and_outputs_have_the_signatures_names(workshop):
    made = workshop.apply(workshop.keras(models.two_in_two_out()), Freeze(), ConvertToONNX())

    graph = onnx.load(made.path).graph
    assert [value.name for value in graph.input] == ["deep", "wide"]
    assert [value.name for value in graph.output] == ["kind", "score"]


@pytest.mark.slow
def test_efficientnet_takes_its_image_alone(workshop):
    import keras

    model = models.settle(
        keras.applications.EfficientNetB0(weights=None, input_shape=(64, 64, 3), classes=10)
    )
    source = workshop.keras(model)

    made = workshop.apply(source, Freeze(), ConvertToONNX())

    # Normalization's mean and variance came out as two more required inputs.
    assert len(onnx.load(made.path).graph.input) == 1
    workshop.assert_answers_alike(source, made, "onnxruntime", batch=2)


@pytest.mark.parametrize("steps", [16, None])
def test_a_transformer_with_gelu_is_converted(workshop, steps):
    source = workshop.keras(models.transformer(steps))

    made = workshop.apply(source, Freeze(), ConvertToONNX())

    # Two blocks, two normalizations each.
    assert operations(made).count("LayerNormalization") == 4
    assert not {"Erfc", "Einsum", "ReduceProd"} & set(operations(made))
    if steps:  # then no sizes are worked out anew at every call
        assert not {"Shape", "Concat"} & set(operations(made))
    workshop.assert_answers_alike(source, made, "onnxruntime", free=5)
    workshop.assert_answers_alike(source, made, "onnxruntime", free=9)


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_an_lstm_becomes_onnx_own_operation_at_any_and_at_a_fixed_batch(workshop, batch):
    source = workshop.keras(models.bidirectional_lstm())

    made = workshop.apply(source, Freeze(), ConvertToONNX(batch=batch))

    assert operations(made).count("LSTM") == 2  # one of them bidirectional
    assert "Loop" not in operations(made)
    workshop.assert_answers_alike(source, made, "onnxruntime", batch=batch or 3)


def test_a_sequence_of_any_length_stays_so(workshop):
    source = workshop.keras(models.bidirectional_lstm(None))

    made = workshop.apply(source, Freeze(), ConvertToONNX())

    workshop.assert_answers_alike(source, made, "onnxruntime", free=3)
    workshop.assert_answers_alike(source, made, "onnxruntime", free=8)


def test_every_common_activation_is_known(workshop):
    import keras
    from keras import layers

    x = keras.Input((6,))
    names = (
        "gelu", "swish", "mish", "softplus", "selu", "elu", "hard_silu", "hard_sigmoid", "relu6",
        "exponential", "softsign", "leaky_relu",
    )  # fmt: skip
    source = workshop.keras(
        keras.Model(x, layers.Concatenate()([layers.Activation(name)(x) for name in names]))
    )

    made = workshop.apply(source, Freeze(), ConvertToONNX())

    workshop.assert_answers_alike(source, made, "onnxruntime")


def test_a_flatbuffer_is_converted_too(workshop):
    source = workshop.keras(models.two_in_two_out())

    made = workshop.apply(source, Freeze(), ConvertToLiteRT(), ConvertToONNX())

    workshop.assert_answers_alike(source, made, "onnxruntime")
