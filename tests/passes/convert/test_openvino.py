import openvino
import pytest

from strop.passes.convert.graph_def import Freeze
from strop.passes.convert.litert import ConvertToLiteRT
from strop.passes.convert.onnx import ConvertToONNX
from strop.passes.convert.openvino import ConvertToOpenVINO
from tests import models


@pytest.mark.parametrize(
    "build",
    [
        models.convnet,
        models.two_in_two_out,
        models.nested,
        models.transformer,
        models.bidirectional_lstm,
    ],
)
def test_what_is_converted_answers_alike_at_any_batch(workshop, build):
    source = workshop.keras(build())

    made = workshop.apply(source, Freeze(), ConvertToOpenVINO())

    workshop.assert_answers_alike(source, made, "openvino", batch=1)
    workshop.assert_answers_alike(source, made, "openvino", batch=3)


@pytest.mark.parametrize("between", [ConvertToONNX, ConvertToLiteRT])
def test_what_comes_by_way_of_another_form_answers_alike(workshop, between):
    source = workshop.keras(models.two_in_two_out())

    made = workshop.apply(source, Freeze(), between(), ConvertToOpenVINO())

    workshop.assert_answers_alike(source, made, "openvino")


def test_inputs_and_outputs_have_the_signatures_names(workshop):
    made = workshop.apply(workshop.keras(models.two_in_two_out()), Freeze(), ConvertToOpenVINO())

    found = openvino.Core().read_model(str(made.path))
    assert [port.any_name for port in found.inputs] == ["deep", "wide"]
    assert [port.any_name for port in found.outputs] == ["kind", "score"]


def test_an_lstm_by_way_of_onnx_is_one_operation(workshop):
    source = workshop.keras(models.bidirectional_lstm())

    made = workshop.apply(source, Freeze(), ConvertToONNX(), ConvertToOpenVINO())

    kinds = {node.get_type_name() for node in openvino.Core().read_model(str(made.path)).get_ops()}
    assert "LSTMSequence" in kinds
    assert not kinds & {"Loop", "TensorIterator"}
    workshop.assert_answers_alike(source, made, "openvino")


def test_weights_stay_whole_unless_halved(workshop):
    frozen = workshop.apply(workshop.keras(models.transformer()), Freeze())

    whole = workshop.apply(frozen, ConvertToOpenVINO())
    halved = workshop.apply(frozen, ConvertToOpenVINO(half_weights=True))

    weights = [model.path.with_suffix(".bin").stat().st_size for model in (whole, halved)]
    assert weights[1] < 0.6 * weights[0]
