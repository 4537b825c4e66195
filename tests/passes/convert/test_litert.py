import pytest

from strop.core.errors import ConversionError
from strop.passes.convert.graph_def import Freeze
from strop.passes.convert.litert import ConvertToLiteRT
from tests import models


@pytest.mark.parametrize(
    "build", [models.convnet, models.two_in_two_out, models.nested, models.transformer]
)
def test_what_is_converted_answers_alike_at_any_batch(workshop, build):
    source = workshop.keras(build())

    made = workshop.apply(source, Freeze(), ConvertToLiteRT())

    assert made.binding.batch is None
    workshop.assert_answers_alike(source, made, "litert", batch=1)
    workshop.assert_answers_alike(source, made, "litert", batch=3)


def test_a_fixed_batch_is_fixed(workshop):
    source = workshop.keras(models.convnet())

    made = workshop.apply(source, Freeze(), ConvertToLiteRT(batch=2))

    assert made.binding.batch == 2
    workshop.assert_answers_alike(source, made, "litert", batch=2)


def test_the_flatbuffer_is_run_by_the_signatures_names(workshop):
    from ai_edge_litert.interpreter import Interpreter

    made = workshop.apply(workshop.keras(models.two_in_two_out()), Freeze(), ConvertToLiteRT())

    assert Interpreter(str(made.path)).get_signature_list() == {
        "serving_default": {"inputs": ["deep", "wide"], "outputs": ["kind", "score"]}
    }


def test_an_input_that_nobody_reads_stays(workshop):
    import keras
    from keras import layers

    class Choosy(layers.Layer):
        def call(self, pair):
            return pair[1] * 2.0

    with keras.saving.custom_object_scope({"Choosy": Choosy}):
        first, second = keras.Input((3,), name="first"), keras.Input((2,), name="second")
        source = workshop.keras(keras.Model([first, second], Choosy()([first, second])))
        made = workshop.apply(source, Freeze(), ConvertToLiteRT())
        workshop.assert_answers_alike(source, made, "litert")


def test_a_convnet_is_built_of_weights_of_its_own_size(workshop):
    source = workshop.keras(models.convnet())

    made = workshop.apply(source, Freeze(), ConvertToLiteRT())

    from strop.graph.keras_files import opened

    assert made.size_bytes > 4 * opened(source).count_params() - 4 * 16  # two of BN's four go


def test_a_bidirectional_lstm_is_converted_at_a_fixed_batch(workshop):
    source = workshop.keras(models.bidirectional_lstm())

    for batch in (1, 2):
        made = workshop.apply(source, Freeze(batch=batch), ConvertToLiteRT())

        assert made.binding.batch == batch
        workshop.assert_answers_alike(source, made, "litert", batch=batch)


def test_a_bidirectional_lstm_is_converted_at_any_batch_when_written_out(workshop):
    source = workshop.keras(models.bidirectional_lstm(steps=6))

    made = workshop.apply(source, Freeze(unroll=True), ConvertToLiteRT())

    workshop.assert_answers_alike(source, made, "litert", batch=1)
    workshop.assert_answers_alike(source, made, "litert", batch=3)


def test_a_loop_of_any_batch_is_refused_with_the_way_out(workshop):
    source = workshop.keras(models.bidirectional_lstm())

    with pytest.raises(ConversionError) as caught:
        workshop.apply(source, Freeze(), ConvertToLiteRT())

    assert str(caught.value) == (
        "LiteRT runs a loop over time only at a batch size that is known when it is traced.\n"
        "Fix it when the graph is frozen.\n"
        "  convert.graph_def(batch=1)"
    )
