"""What every pass promises, held on a trained model: a new pass is tested before its author writes a test."""

import numpy as np
import pytest

from strop.core import registry
from strop.core.contracts import Exactness, Needs, Unchanged
from strop.core.model import Form, Model, digest_of
from strop.core.recipe import Step
from strop.engine.context import home_runtime
from strop.engine.fidelity import predict_all
from strop.engine.tasks import LARGEST_ROUNDING
from strop.graph.quiet import quiet
from strop.numerics.similarity import relative_error
from tests.stock import routes_to

# A graph is brought in order again only where it has TensorFlow's own operations to fold; ours has none left.
# Nor is there a call, a padding written out or a layer for channels-first data in what Keras gives.
# Weights that nobody pruned have no zeros to leave out: tests/passes/prune/test_litert_sparse.py has some that do.
NOTHING_TO_DO = {
    (name, ("convert.graph_def",))
    for name in (
        "convert.graph_def", "simplify.fold_padding", "simplify.inline", "simplify.layout",
    )
} | {("prune.litert_sparse", ("convert.graph_def", "convert.litert"))}  # fmt: skip
# Settings for passes that have nothing to do for the digits at their defaults: its layers are small, and of full rank.
SETTINGS = {"factorize.low_rank": {"energy": 0.8}}
CASES = [
    pytest.param(name, route, id=f"{name} after {route[-1] if route else 'the source'}")
    for name in registry.passes.names()
    for route in routes_to(registry.passes.get(name))
    if (name, route) not in NOTHING_TO_DO
]
# What trains takes its time for each application.
TWICE = [
    pytest.param(*case.values, id=case.id, marks=[pytest.mark.slow])
    if registry.passes.get(case.values[0]).needs is Needs.TRAINING
    else case
    for case in CASES
]


@pytest.fixture(autouse=True)
def _silence():
    with quiet():
        yield


def apply(made, name, model):
    kind = registry.passes.get(name).from_settings(SETTINGS.get(name, {}))
    return kind.apply(model, made.context())


def answers(model, samples):
    with home_runtime(model.form)().open(model) as predictor:
        return predict_all(predictor, samples)


@pytest.fixture
def outcome(made, name, route):
    """The pass applied once; the same outcome serves every claim."""
    return made.model((*route, Step(name, SETTINGS.get(name, {}))))


@pytest.mark.parametrize(("name", "route"), CASES)
def test_the_model_that_was_given_is_left_as_it_was(made, outcome, name, route):
    given = made.model(route)
    assert digest_of(given.form, given.path) == given.digest


@pytest.mark.parametrize(("name", "route"), CASES)
def test_the_result_is_whole_has_the_declared_form_and_keeps_the_signature(
    made, outcome, name, route
):
    given = made.model(route)
    assert outcome.form is (registry.passes.get(name).gives or given.form)
    assert outcome.signature == given.signature == made.source.signature
    assert digest_of(outcome.form, outcome.path) == outcome.digest
    assert outcome.path.is_relative_to(made.folder)
    assert len(outcome.lineage) == len(given.lineage) + 1


@pytest.mark.parametrize(("name", "route"), CASES)
def test_the_result_survives_being_written_down(outcome, name, route):
    assert Model.from_json(outcome.to_json()) == outcome


@pytest.mark.parametrize(("name", "route"), TWICE)
def test_the_same_seed_gives_the_same_bytes(made, outcome, name, route):
    again = apply(made, name, made.model(route))
    assert again.digest == outcome.digest


@pytest.mark.parametrize(("name", "route"), TWICE)
def test_a_second_application_changes_nothing_or_is_still_right(made, outcome, name, route):
    kind = registry.passes.get(name)
    if outcome.form not in kind.takes:
        pytest.skip(f"what '{name}' gives is not what it takes")
    again = apply(made, name, outcome)
    assert isinstance(again, Unchanged) or not kind.is_idempotent
    if not isinstance(again, Unchanged):
        fidelity = made.context().evaluate(again)
        assert fidelity.finite
        assert fidelity.drop.value <= 0.05


@pytest.mark.parametrize(("name", "route"), CASES)
def test_the_answers_are_kept_as_far_as_the_pass_promises(made, outcome, name, route):
    samples = made.bench.samples().calibrate.head(32)

    (wanted,) = made.bench.answers("calibrate", 32)
    (found,) = answers(outcome, samples)

    exactness = registry.passes.get(name).exactness
    if exactness is Exactness.EXACT:
        np.testing.assert_array_equal(found, answers(made.model(route), samples)[0])
    elif exactness is Exactness.ROUNDING:
        assert relative_error(wanted, found) <= LARGEST_ROUNDING
    else:
        # A well-trained classifier of ten digits bears eight bits: most answers stay what they were.
        fidelity = made.context().evaluate(outcome)
        assert fidelity.finite
        assert fidelity.drop.value <= 0.05


@pytest.mark.parametrize(("name", "route"), sorted(NOTHING_TO_DO))
def test_a_pass_with_nothing_to_do_says_why(made, name, route):
    outcome = apply(made, name, made.model(route))
    assert isinstance(outcome, Unchanged)
    assert len(outcome.reason.split()) > 2


@pytest.mark.parametrize("name", registry.passes.names())
def test_its_defaults_are_allowed_and_its_searched_values_too(name):
    kind = registry.passes.get(name)
    known = {"cores": 2, "batch": 1, "safe_weight_bits": 7}
    for parameter, declared in kind.parameters().items():
        for value in declared.search:
            chosen = known.get(value, value) if isinstance(value, str) else value
            assert kind.mistakes({parameter: chosen}) == []
    kind()


def test_every_form_but_saved_models_is_tried():
    tried = {form for name in registry.passes.names() for form in registry.passes.get(name).takes}
    # SavedModels are sources only; tests/graph/readers reads them.
    assert tried <= set(Form)
    with_cases = {case.values[0] for case in CASES} | {name for name, _ in NOTHING_TO_DO}
    assert with_cases == set(registry.passes.names())
