import shutil
import sys

import pytest

from strop.core.contracts import Unchanged
from strop.core.model import Form
from strop.graph.frozen import read_graph
from strop.graph.reading import read
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


def test_long_sequences_are_not_written_out(workshop, tmp_path):
    source = workshop.keras(models.bidirectional_lstm(steps=65))

    outcome = Freeze(unroll=True).apply(source, PlainContext(tmp_path))

    assert outcome == Unchanged("the input has 65 steps, more than most_steps (64)")


def test_that_there_is_nothing_to_write_out_is_said_without_loading_the_model(
    workshop, tmp_path, monkeypatch
):
    source = workshop.keras(models.nested())
    monkeypatch.setitem(sys.modules, "keras", None)  # how Python spells "not there"

    outcome = Freeze(unroll=True).apply(source, PlainContext(tmp_path))

    assert isinstance(outcome, Unchanged)


def test_a_batch_is_fixed_in_a_graph_that_another_froze(workshop, tmp_path):
    ours = workshop.apply(workshop.keras(models.convnet()), Freeze())
    theirs = read(shutil.copy(ours.path, tmp_path / "theirs.pb"), tmp_path)

    made = workshop.apply(theirs, Freeze(batch=2))

    (given,) = [node for node in read_graph(made.path).node if node.op == "Placeholder"]
    assert [size.size for size in given.attr["shape"].shape.dim] == [2, 12, 12, 3]
    assert made.binding.batch == 2


def test_a_free_dimension_stays_free(workshop):
    source = workshop.keras(models.transformer(None))

    made = workshop.apply(source, Freeze())

    workshop.assert_answers_alike(source, made, "tensorflow", free=5)
    workshop.assert_answers_alike(source, made, "tensorflow", free=9)
