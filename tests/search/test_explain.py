"""Why a technique did not help: told where something is known, and never where it did help."""

import pytest

from strop.core.evaluation import Evaluation, Goal, Measurement
from strop.core.recipe import Recipe, Step
from strop.engine.machine import this_machine
from strop.search.explain import explain


def evaluation(milliseconds):
    return Evaluation({"latency_p50@1": Measurement.exact(milliseconds, "ms")}, None)


def told(recipe, now, before=1.0, facts=None):
    parent = None if before is None else evaluation(before)
    return explain(recipe, evaluation(now), parent, Goal(), this_machine(), facts or {})


def quantized(name):
    return Recipe((Step("convert.litert"), Step(f"quantize.{name}")), "litert")


@pytest.mark.parametrize("now", [0.4, 1.0, 1.01])
def test_nothing_is_said_of_what_helped_or_did_no_harm(now):
    assert told(quantized("litert_static"), now) == ""


def test_nothing_is_said_where_there_is_nothing_to_compare_with():
    assert told(quantized("litert_static"), 3.0, before=None) == ""


@pytest.mark.parametrize(
    ("recipe", "facts", "reason"),
    [
        (
            quantized("litert_static"),
            {"left_in_float": {"a": "", "b": ""}},
            "2 layers stayed in float",
        ),
        (quantized("litert_weights"), {}, "unpacked to float"),
        (quantized("litert_float16"), {}, "smaller, not faster"),
        (quantized("onnx_dynamic"), {}, "finding the ranges at each call"),
        (Recipe((), "tensorflow", {"jit": "xla"}), {}, "XLA's own CPU kernels"),
    ],
)
def test_what_did_not_help_is_told_by_how_much_and_why(recipe, facts, reason):
    said = told(recipe, 1.5, facts=facts)
    assert said.startswith("1.50 times the time of the same without it: ")
    assert reason in said


@pytest.mark.parametrize(
    ("recipe", "facts", "seen"),
    [
        (quantized("onnx_dynamic"), {}, ""),
        (Recipe((), "tensorflow", {"jit": "xla"}), {}, ""),
        (
            quantized("onnx_dynamic"),
            {"left_in_float": {"a": ""}},
            "1 layer stayed in float, with conversions at its borders; ",
        ),
    ],
)
def test_what_is_only_inferred_is_said_to_be_probable(recipe, facts, seen):
    said = told(recipe, 1.5, facts=facts)
    assert said.startswith(f"1.50 times the time of the same without it: {seen}probably ")


def test_threads_that_fight_over_little_work_are_told():
    said = told(Recipe((), "litert", {"threads": 2}), 0.2, before=0.1)
    assert "so short that handing work to several threads costs more" in said
