"""What each change brought, and why it did not help: told where something is known, and marked where it is inferred."""

from dataclasses import replace

import pytest

from strop.core import registry
from strop.core.contracts import Exactness
from strop.core.evaluation import Evaluation, Goal, Measurement
from strop.core.recipe import Recipe, Step
from strop.engine.ledger import Trial
from strop.engine.machine import this_machine
from strop.search.explain import explain

GRAPH, LITERT = Step("convert.graph_def"), Step("convert.litert")
FLOAT = Recipe((GRAPH, LITERT), "litert")
ORIGINAL = Recipe((), "tensorflow")
BARE = replace(this_machine(), cores=2, instructions=("AVX2",))
ABLE = replace(BARE, instructions=("AVX2", "AVX-512 VNNI", "AVX-512 BF16"))
UNITS = {
    "latency_p50@1": "ms",
    "throughput@1": "1/s",
    "size": "bytes",
    "cold_start": "ms",
    "peak_memory": "bytes",
}


def trial(recipe, value, *, measures="latency_p50@1", width=0.0, facts=None):
    figure = Measurement(value, UNITS[measures], value - width, value + width, 100)
    return Trial(str(recipe), recipe, "done", "", Evaluation({measures: figure}), facts or {})


def told(recipe, now, *others, goal="latency", machine=ABLE, original=9.0, **figures):
    """What is said of `recipe`, which has `now`, beside pairs of another recipe and its figure."""
    measures = {k: v for k, v in figures.items() if k in ("measures", "width")}
    this = trial(recipe, now, **figures)
    rest = [trial(other, value, **measures) for other, value in ((ORIGINAL, original), *others)]
    return explain(this, [this, *rest], rest[0], Goal(minimize=goal), machine)


def then(name, recipe=FLOAT, **settings):
    return Recipe((*recipe.steps, Step(f"quantize.{name}", settings)), recipe.runtime)


def test_what_helped_is_said_to_have_helped_and_no_cause_is_named():
    assert told(then("litert_static"), 0.4, (FLOAT, 1.0)) == (
        "quantize.litert_static helped, 0.40 times the time without it."
    )


@pytest.mark.parametrize(
    ("now", "figures", "verdict"),
    [
        (1.0, {}, "no difference"),
        (1.015, {}, "no sure difference"),
        (0.985, {}, "no sure difference"),
        (1.3, {"width": 0.2}, "no sure difference"),
        (1.15, {"goal": "cold-start", "measures": "cold_start"}, "no sure difference"),
    ],
)
def test_what_may_be_the_machines_doing_is_no_difference(now, figures, verdict):
    said = told(then("litert_static"), now, (FLOAT, 1.0), **figures)
    assert said.startswith(f"quantize.litert_static made {verdict}, {now:.2f} times the ")


@pytest.mark.parametrize(
    ("technique", "facts", "machine", "reason"),
    [
        ("litert_static", {"left_in_float": {"a": "", "b": ""}}, ABLE, ": 2 layers stayed in float"),
        ("litert_static", {}, BARE, ": this processor has no integer dot-product instructions."),
        ("litert_static", {}, ABLE, "probably this engine's integer kernels"),
        ("litert_weights", {}, BARE, ": probably the weights are unpacked to float"),
        ("litert_float16", {}, ABLE, "smaller, not faster"),
        ("litert_dynamic", {}, ABLE, ": probably finding the ranges at each call"),
        (
            "litert_dynamic", {"left_in_float": {"a": ""}}, ABLE,
            ": 1 layer stayed in float, with conversions at its borders; probably finding",
        ),
    ],
)  # fmt: skip
def test_what_did_not_help_is_told_by_how_much_and_why(technique, facts, machine, reason):
    said = told(then(technique), 1.5, (FLOAT, 1.0), facts=facts, machine=machine)
    begins = f"quantize.{technique} made it worse, 1.50 times the time without it: "
    assert said.startswith(begins)
    assert reason in said


def test_work_too_small_for_its_overhead_is_told():
    said = told(then("litert_static"), 0.08, (FLOAT, 0.05))
    assert "probably the work is so small" in said


def test_every_lossy_technique_says_what_it_costs_or_that_it_computes_in_integers():
    kinds = [kind for kind in registry.passes if kind.exactness is Exactness.LOSSY]
    assert kinds
    for kind in kinds:
        assert kind.price or kind.computes_in_integers, kind.name
        assert not kind.price.endswith("."), kind.name


def test_a_technique_that_converts_is_held_against_the_plain_conversion():
    by_converter = Recipe((GRAPH, Step("quantize.litert_converter", {"batch": 1})), "litert")
    said = told(by_converter, 1.5, (FLOAT, 1.0), (FLOAT.on("litert", {"threads": 2}), 0.2))
    assert said.startswith(
        "quantize.litert_converter made it worse, "
        "1.50 times the time by convert.graph_def > convert.litert: "
    )


def test_a_technique_with_nothing_beside_it_is_held_against_the_original():
    said = told(then("litert_static"), 1.5, original=1.0)
    assert said == (
        "the whole recipe made it worse, 1.50 times the time of the original: "
        "why can't be told from what was measured."
    )


@pytest.mark.parametrize(
    ("engine", "plain", "settings", "now", "wanted"),
    [
        ("litert", {}, {"threads": 2}, 0.2, "threads=2 made it worse, 2.00 times the time with "
            "threads=1: probably so short that handing work to several threads costs more"),
        ("onnxruntime", {"threads": 1}, {"threads": 8}, 0.2, "threads=8 made it worse, 2.00 times the time with "
            "threads=1: 8 threads share 2 cores."),
        ("onnxruntime", {}, {"graph_optimization": "extended"}, 0.2, "graph_optimization=extended made it worse, 2.00 "
            "times the time with graph_optimization=all: why can't be told"),
        ("openvino", {}, {"precision": "bf16"}, 0.2, "precision=bf16 made it worse, 2.00 times the time with "
            "precision=f32: this processor has no bfloat16 instructions."),
        ("tensorflow", {}, {"jit": "xla"}, 0.2, "jit=xla made it worse, 2.00 times the time with jit=off: probably "
            "XLA's own CPU kernels"),
        ("tensorflow", {}, {"jit": "xla"}, 0.1, "jit=xla made no difference, 1.00 times the time with jit=off: "
            "why can't be told"),
    ],
)  # fmt: skip
def test_a_setting_is_held_against_its_plainest_value(engine, plain, settings, now, wanted):
    recipe = Recipe((GRAPH,), engine, settings)
    said = told(recipe, now, (recipe.on(engine, plain), 0.1), machine=BARE)
    assert said.startswith(wanted)
    assert "with" not in told(recipe.on(engine, plain), 0.1, (recipe, now), machine=BARE)


def test_what_was_dropped_after_a_single_call_is_nothing_to_compare_with():
    this, original = trial(then("litert_static"), 0.5), trial(ORIGINAL, 1.0)
    dropped = replace(trial(FLOAT, 40.0), state="dropped")
    said = explain(this, [this, dropped, original], original, Goal(), ABLE)
    assert said == "the whole recipe helped, 0.50 times the time of the original."


def test_technique_and_settings_are_told_apart():
    quantized = then("litert_static", io="integer").on("litert", {"threads": 2})
    said = told(
        quantized, 0.5,
        (then("litert_static", io="integer"), 0.8),
        (then("litert_static").on("litert", {"threads": 2}), 0.5),
        (FLOAT.on("litert", {"threads": 2}), 1.0),
    )  # fmt: skip
    assert said == (
        "io=integer made no difference, 1.00 times the time with io=float: why can't be told from what was measured. "
        "threads=2 helped, 0.62 times the time with threads=1. "
        "quantize.litert_static helped, 0.50 times the time without it."
    )


def test_other_ways_to_a_form_are_held_against_the_plain_one():
    openvino = Step("convert.openvino")
    plain = Recipe((GRAPH, openvino), "openvino")
    by_onnx = Recipe((GRAPH, Step("convert.onnx"), openvino), "openvino")
    unrolled = Recipe((Step("convert.graph_def", {"unroll": True}), openvino), "openvino")
    assert told(by_onnx, 0.5, (plain, 1.0)) == (
        "the longer way helped, 0.50 times the time by the shorter one."
    )
    assert told(unrolled, 0.5, (plain, 1.0)) == (
        "unroll=True helped, 0.50 times the time with unroll=False."
    )
    assert told(plain, 3.0) == "the conversion helped, 0.33 times the time of the original."


@pytest.mark.parametrize(
    ("goal", "measures", "now", "wanted"),
    [
        ("size", "size", 2e6, "made it worse, 2.00 times the size without it: why can't be told"),
        ("throughput", "throughput@1", 2e6, "helped, 2.00 times the throughput without it."),
        ("throughput", "throughput@1", 5e5, "made it worse, 0.50 times the throughput without it: "),
        ("memory", "peak_memory", 2e6, "made it worse, 2.00 times the peak memory without it: why"),
        ("cold-start", "cold_start", 5e5, "helped, 0.50 times the cold start without it."),
    ],
)  # fmt: skip
def test_it_is_told_in_what_is_minimized(goal, measures, now, wanted):
    said = told(then("litert_static"), now, (FLOAT, 1e6), goal=goal, measures=measures)
    assert said.startswith(f"quantize.litert_static {wanted}")


def test_a_setting_of_an_engine_is_known_not_to_change_the_file():
    threads = FLOAT.on("litert", {"threads": 2})
    said = told(threads, 1e6, (FLOAT, 1e6), goal="size", measures="size")
    assert said.endswith("with threads=1: how a file is run does not change it.")


def test_nothing_is_said_where_what_is_minimized_was_not_measured():
    assert told(then("litert_static"), 1.0, (FLOAT, 1.0), goal="memory") == ""


def test_a_part_of_a_batch_is_held_against_the_whole_though_the_model_was_made_anew_for_it():
    def made_for(batch, **settings):
        return Recipe((GRAPH, Step("convert.litert", {"batch": batch})), "litert", settings)

    whole = made_for(32, threads=2)
    said = told(made_for(4, threads=2, micro_batch=4), 0.8, (whole, 1.0))
    assert said == "micro_batch=4 helped, 0.80 times the time with micro_batch=0."

    said = told(made_for(1, threads=2, micro_batch=1), 1.3, (whole, 1.0))
    assert said.startswith(
        "micro_batch=1 made it worse, 1.30 times the time with micro_batch=0: probably"
    )
