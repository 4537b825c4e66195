"""What every rewriting of graphs promises, held on random graphs, alone and in random orders."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strop.core import registry
from strop.core.contracts import Context, Unchanged
from strop.core.evaluation import Goal
from strop.core.model import Binding, Form, Model
from strop.core.signature import Signature, TensorSpec
from strop.graph.frozen import read_graph
from strop.graph.quiet import quiet
from strop.graph.simplifying import Ends, leave_out_unneeded
from tests.graphs import INPUT, SIZE, answers_and_bounds, programs, run

NAMES = [name for name in registry.passes.names() if name.startswith("simplify.")]
SLOW = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Bare(Context):
    """A context for passes that need nothing beside the model."""

    seed, goal = 0, Goal()

    def __init__(self, folder):
        self.workspace = Path(tempfile.mkdtemp(dir=folder))

    calibration = training = property(lambda self: pytest.fail("it said that it needs no samples"))

    def evaluate(self, model, *tail):
        pytest.fail("it said that it needs no samples")

    def progress(self, fraction, note=""):
        pass


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


def model_of(graph, channels, folder):
    """A drawn graph as a model on disk, what nothing needs left out."""
    leave_out_unneeded(graph.definition, Ends(graph.inputs, graph.outputs))
    path = Path(folder) / "drawn.pb"
    path.write_bytes(graph.definition.SerializeToString(deterministic=True))
    signature = Signature(
        (TensorSpec(INPUT, (*SIZE, channels), "float32"),),
        tuple(TensorSpec(name, (None,), "float32") for name in graph.outputs),
    )
    binding = Binding.plain(signature, graph.inputs, graph.outputs)
    return Model.at(Form.GRAPH_DEF, path, signature, binding)


def applied(name, model, folder):
    """What a pass makes of a model; the model itself where it finds nothing to do."""
    found = registry.passes.get(name)().apply(model, Bare(folder))
    return model if isinstance(found, Unchanged) else found


def nodes(model):
    return len(read_graph(model.path).node)


@pytest.mark.parametrize("name", NAMES)
@SLOW
@given(program=programs())
def test_answers_stay_and_nodes_do_not_grow(name, program):
    graph, x, wanted, bounds = answers_and_bounds(program)
    with tempfile.TemporaryDirectory() as folder:
        given_ = model_of(graph, program.channels, folder)
        digest = given_.digest
        found = applied(name, given_, folder)
        again = applied(name, found, folder)

        assert (
            Model.at(Form.GRAPH_DEF, given_.path, given_.signature, given_.binding).digest
            == digest
        )
        assert found.signature == given_.signature
        assert nodes(found) <= nodes(given_)
        assert nodes(again) == nodes(found)
        answers = run(read_graph(found.path), graph.outputs, x)
    for answer, right, bound in zip(answers, wanted, bounds, strict=True):
        assert answer.shape == right.shape
        assert (np.abs(answer - right) <= bound).all()


@SLOW
@given(program=programs(most=10), order=st.permutations(NAMES))
def test_in_any_order_too(program, order):
    graph, x, wanted, bounds = answers_and_bounds(program)
    with tempfile.TemporaryDirectory() as folder:
        model = model_of(graph, program.channels, folder)
        for name in order:
            model = applied(name, model, folder)
        answers = run(read_graph(model.path), graph.outputs, x)
    for answer, right, bound in zip(answers, wanted, bounds, strict=True):
        assert (np.abs(answer - right) <= bound).all()
