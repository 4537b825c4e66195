import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strop.core.errors import ParameterError
from strop.core.evaluation import Evaluation, Fidelity, Goal, Measurement, OutputDifference
from strop.core.figures import spelled

SAME = OutputDifference("label", 0.0, 0.0, math.inf, 0.0, 1.0, finite=True)


def fidelity(drop=0.0, high=None, *, floor=0.0, **difference):
    measured = Measurement(drop, "", drop, drop if high is None else high, 100)
    outputs = (replace(SAME, **difference),)
    return Fidelity(measured, "accuracy", None, None, outputs, 100, "select", floor, adds_up=True)


figures = st.floats(allow_nan=False, width=32)
measurements = st.builds(
    Measurement, figures, st.sampled_from(["ms", "bytes", ""]), figures, figures, st.integers(1, 9)
)
differences = st.builds(
    OutputDifference,
    st.text(max_size=5),
    figures,
    figures,
    figures,
    figures,
    st.none() | figures,
    st.booleans(),
)
fidelities = st.builds(
    Fidelity,
    measurements,
    st.text(max_size=5),
    st.none() | measurements,
    st.none() | measurements,
    st.lists(differences, max_size=2).map(tuple),
    st.integers(0, 100),
    st.sampled_from(["select", "confirm"]),
    figures,
)
evaluations = st.builds(
    Evaluation,
    st.dictionaries(st.text(max_size=5), measurements, max_size=3),
    st.none() | fidelities,
)


@given(evaluations)
def test_json_brings_an_evaluation_back(evaluation):
    assert Evaluation.from_json(json.loads(json.dumps(evaluation.to_json()))) == evaluation


@given(evaluations)
def test_json_that_knows_no_infinity_brings_an_evaluation_back(evaluation):
    text = json.dumps(spelled(evaluation.to_json()), allow_nan=False)
    assert Evaluation.from_json(json.loads(text)) == evaluation


def test_what_is_no_number_comes_back_as_none():
    found = fidelity(math.nan, sqnr_db=math.nan)
    back = Fidelity.from_json(json.loads(json.dumps(spelled(found.to_json()), allow_nan=False)))
    assert math.isnan(back.drop.value)
    assert math.isnan(back.sqnr_db)


def test_a_goal_without_a_limit_comes_back():
    goal = Goal(max_drop=math.inf)
    assert Goal.from_json(json.loads(json.dumps(spelled(goal.to_json()), allow_nan=False))) == goal


def test_json_brings_a_goal_back():
    goal = Goal("size", max_drop=0.02, confidence=0.95, batch_sizes=(4, 1), metric="auc")
    assert Goal.from_json(json.loads(json.dumps(goal.to_json()))) == goal


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_drop_is_met_up_to_the_limit_and_no_further(drop, limit):
    assert (Goal(max_drop=limit).shortfall(fidelity(drop)) is None) == (drop <= limit)


def test_a_drop_over_the_limit_says_both():
    reason = Goal(max_drop=0.01).shortfall(fidelity(0.025))
    assert reason == "accuracy drops by 0.025, more than the limit 0.01"


def test_with_a_confidence_the_upper_bound_counts():
    found = fidelity(0.005, high=0.03)

    assert Goal(max_drop=0.01).shortfall(found) is None
    assert Goal(max_drop=0.01, confidence=0.95).shortfall(found) == (
        "accuracy may drop by 0.03 (upper bound at 95%), more than the limit 0.01"
    )


@pytest.mark.parametrize(
    ("here", "low", "chosen", "told"),
    [
        (0.015, -0.01, -0.010, None),  # 0.0025 on all of them
        (
            0.015,
            -0.01,
            0.009,
            "accuracy drops by 0.012 on these and the search's samples together, more than the limit 0.01",
        ),
        (
            0.000,
            -0.01,
            0.030,
            "accuracy drops by 0.015 on these and the search's samples together, more than the limit 0.01",
        ),
        (0.030, 0.012, -0.030, "accuracy drops by 0.03, more than the limit 0.01"),  # proved
    ],
)
def test_what_a_model_was_chosen_on_counts_too_but_against_a_proof(here, low, chosen, told):
    found = replace(fidelity(here), drop=Measurement(here, "", low, 0.05, 100))
    goal = Goal(max_drop=0.01)
    assert goal.shortfall(found, fidelity(chosen)) == told
    strict = Goal(max_drop=0.01, confidence=0.95)
    assert strict.shortfall(found, fidelity(chosen)) is not None
    no_mean = replace(found, adds_up=False)
    assert (goal.shortfall(no_mean, fidelity(chosen)) is None) == (here <= 0.01)


@given(st.lists(st.booleans(), min_size=2, max_size=30), st.data())
def test_the_drop_on_two_sets_of_samples_is_that_on_all(lost, data):
    parted = data.draw(st.integers(1, len(lost) - 1))

    def on(samples):
        value = sum(samples) / len(samples)
        return replace(fidelity(), drop=Measurement(value, "", 0.0, 1.0, 1), samples=len(samples))

    one, other = on(lost[:parted]), on(lost[parted:])
    assert one.drop_with(other) == pytest.approx(sum(lost) / len(lost))


def test_nobody_is_held_to_less_than_the_originals_own_noise():
    assert Goal(max_drop=0.0).shortfall(fidelity(0.02, floor=0.02)) is None


def test_what_is_not_finite_never_passes():
    found = fidelity(0.0, finite=False)
    assert Goal(max_drop=1.0).shortfall(found) == "gives outputs that are not finite"


def test_a_least_sqnr_is_asked_of_the_worst_output():
    found = replace(fidelity(), outputs=(SAME, replace(SAME, sqnr_db=31.26)))

    assert Goal(min_sqnr_db=30).shortfall(found) is None
    assert Goal(min_sqnr_db=40).shortfall(found) == "SQNR is 31.3 dB, less than the limit 40 dB"


def test_all_mistakes_of_a_goal_are_told_at_once():
    with pytest.raises(ParameterError) as caught:
        Goal("speed", max_drop=math.nan, confidence=1.0, batch_sizes=(0,))  # type: ignore[arg-type]

    assert str(caught.value).splitlines() == [
        "minimize must be one of latency, throughput, size, zipped-size, memory, cold-start, not 'speed'",
        "max_drop must be a number from 0 up, not nan",
        "confidence must lie in 0.5..1, not 1.0",
        "batch sizes must be whole numbers from 1 up, not (0,)",
    ]


@pytest.mark.parametrize(
    ("minimize", "name"),
    [("latency", "latency_p50@4"), ("throughput", "throughput@4"), ("cold-start", "cold_start")],
)
def test_the_objective_is_taken_at_the_first_batch_size(minimize, name):
    wanted = Measurement.exact(3.0, "ms")
    evaluation = Evaluation({name: wanted, "size": Measurement.exact(9, "bytes")})

    assert evaluation.objective(Goal(minimize, batch_sizes=(4, 1))) is wanted
