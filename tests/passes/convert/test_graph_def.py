import pytest

from strop.core.contracts import Unchanged
from strop.core.model import Form
from strop.passes.convert.graph_def import Freeze
from tests import models
from tests.passes.convert.conftest import PlainContext


@pytest.mark.parametrize("build", [models.convnet, models.two_in_two_out, models.nested])
def test_what_is_frozen_answers_alike(workshop, build):
    source = workshop.keras(build())

    made = workshop.apply(source, Freeze())

    assert made.form is Form.GRAPH_DEF
    assert made.signature == source.signature
    workshop.assert_answers_alike(source, made, "tensorflow")


def test_freezing_what_is_frozen_changes_nothing(workshop, tmp_path):
    made = workshop.apply(workshop.keras(models.convnet()), Freeze())

    assert isinstance(Freeze().apply(made, PlainContext(tmp_path)), Unchanged)


def test_the_same_model_gives_the_same_bytes(workshop):
    source = workshop.keras(models.convnet())

    assert workshop.apply(source, Freeze()).digest == workshop.apply(source, Freeze()).digest


def test_recurrent_layers_are_written_out_where_asked(workshop):
    source = workshop.keras(models.bidirectional_lstm())

    made = workshop.apply(source, Freeze(unroll=True))

    workshop.assert_answers_alike(source, made, "tensorflow")


def test_a_model_without_recurrent_layers_has_nothing_to_write_out(workshop, tmp_path):
    outcome = Freeze(unroll=True).apply(workshop.keras(models.convnet()), PlainContext(tmp_path))

    assert outcome == Unchanged("there is no recurrent Keras layer with a known number of steps")


def test_a_free_dimension_stays_free(workshop):
    source = workshop.keras(models.transformer(None))

    made = workshop.apply(source, Freeze())

    workshop.assert_answers_alike(source, made, "tensorflow", free=5)
    workshop.assert_answers_alike(source, made, "tensorflow", free=9)
