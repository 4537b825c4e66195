"""The page of outcomes that are rare: the original kept, errors without bound."""

import json
import math
import re
from dataclasses import replace

import pytest

from strop.core.evaluation import Evaluation, Measurement
from strop.core.recipe import Recipe, Step
from strop.report.page import page
from tests.report.made import circumstances, fidelity, outcome, trial


def charts(text):
    """Return what is in the page for the pictures, read as a browser does: strictly."""
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', text, re.S)

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(found.group(1), parse_constant=refuse)


def trace(text, name):
    return next(t for t in charts(text)["tradeoff"]["data"] if t["name"] == name)


def test_an_original_that_is_kept_is_starred_where_it_stands():
    text = page(outcome(best="baseline"), circumstances())
    star = trace(text, "best")
    assert (star["x"], star["y"]) == ([2.0], [0.954])


def test_without_a_metric_the_original_agrees_with_itself():
    text = page(outcome(best="baseline", metric=None), circumstances())
    star = trace(text, "best")
    assert (star["x"], star["y"]) == ([2.0], [1.0])


def test_an_error_without_bound_does_not_stop_the_page():
    text = page(outcome(drop=math.inf, high=math.inf, metric=None), circumstances())
    shown = charts(text)["tradeoff"]["data"]
    assert all(math.isfinite(y) for t in shown for y in t["y"])


def test_the_axis_of_the_trade_off_is_marked_in_units():
    axis = charts(page(outcome(), circumstances()))["tradeoff"]["layout"]["xaxis"]
    assert axis["ticktext"] == ["1 ms", "2 ms"]
    assert axis["tickvals"] == [1.0, 2.0]


GRAPH, OPENVINO, STATIC = map(
    Step, ("convert.graph_def", "convert.openvino", "quantize.openvino_static")
)
ORIGINAL = trial(1, Recipe((), "tensorflow"), 8.0, 4000)
CORES, BOTH = {"threads": 2}, {"precision": "bf16", "threads": 2}
# Number, recipe, milliseconds and bytes of each trial of a study, the last the winner.
FOUND = [
    (2, Recipe((), "keras_predict"), 30.0, 4000),
    (3, Recipe((GRAPH,), "tensorflow"), 7.9, 3900),
    (4, Recipe((GRAPH,), "tensorflow", {"jit": "xla"}), 7.0, 3900),
    (5, Recipe((GRAPH, Step("convert.litert")), "litert"), 1.0, 3800),
    (6, Recipe((GRAPH, OPENVINO), "openvino", {"threads": 1}), 4.0, 3800),
    (7, Recipe((GRAPH, OPENVINO), "openvino", CORES), 2.0, 3800),
    (8, Recipe((GRAPH, OPENVINO), "openvino", BOTH), 1.5, 3800),
    (9, Recipe((GRAPH, OPENVINO, STATIC), "openvino", CORES), 0.5, 1000),
    (10, Recipe((GRAPH, OPENVINO, STATIC), "openvino", BOTH), 0.55, 1000),
]


def steps_of(trials, *, minimize="latency"):
    """Return the bars of the page about `trials` (and the original), the last of them the winner."""
    trials = [ORIGINAL, *trials]
    found = replace(outcome(), baseline=ORIGINAL, trials=tuple(trials), best=trials[-1], pairs=())
    text = page(found, circumstances(minimize=minimize))
    drawn = charts(text)["waterfall"]
    texts = [note["text"] for note in drawn["layout"]["annotations"]]
    return drawn["data"][0], texts, drawn["layout"]["yaxis"]["title"]["text"]


def made(*numbers):
    return [trial(*found, fidelity()) for found in FOUND if found[0] in numbers]


def test_each_change_of_the_winner_has_a_bar_of_what_it_brought():
    bars, texts, axis = steps_of(made(*range(2, 11)))
    assert axis == "latency (ms)"
    assert [" ".join(label.split("<br>")) for label in bars["x"]] == [
        "original @ tensorflow", "convert.graph_def", "convert.openvino @ openvino threads=1", "threads=2",
        "quantize. openvino_static", "precision=bf16", "best",
    ]  # fmt: skip
    assert bars["y"] == pytest.approx([8.0, -0.1, -3.9, -2.0, -1.5, 0.05, 0.55])
    assert bars["measure"] == ["absolute", *["relative"] * 5, "total"]
    assert texts == [
        "8 ms", "7.9 ms<br>no sure difference", "4 ms<br>1.98× faster", "2 ms<br>2.0× faster", "500 µs<br>4.0× faster",
        "550 µs<br>1.10× slower", "550 µs",
    ]  # fmt: skip


def test_a_model_made_anew_for_a_part_of_the_batch_stands_on_the_one_made_for_all_of_it():
    def made_for(batch, ms, **settings):
        recipe = Recipe((GRAPH, Step("convert.litert", {"batch": batch})), "litert", settings)
        return trial(batch, recipe, ms, 1000, fidelity())

    bars, _, _ = steps_of(
        [made_for(32, 2.0, threads=2), made_for(4, 1.5, threads=2, micro_batch=4)]
    )
    assert [label.split("<br>")[-1] for label in bars["x"]] == [
        "@ tensorflow", "threads=2", "micro_batch=4", "best",
    ]  # fmt: skip
    assert bars["y"] == pytest.approx([8.0, -6.0, -0.5, 1.5])


def test_what_was_not_measured_apart_stands_together_and_nothing_is_drawn_as_nought():
    unmeasured = replace(made(9)[0], evaluation=None, state="failed")
    bars, _, _ = steps_of([*made(3), unmeasured, *made(10)])
    assert bars["x"][2].split("<br>") == [
        "convert.openvino", "quantize.", "openvino_static", "@ openvino", "precision=bf16", "threads=2",
    ]  # fmt: skip
    assert bars["y"] == pytest.approx([8.0, -0.1, -7.35, 0.55])


@pytest.mark.parametrize(
    ("minimize", "name", "unit", "axis"),
    [
        ("size", "size", "bytes", "size (bytes)"),
        ("zipped-size", "zipped_size", "bytes", "zipped-size (bytes)"),
        ("throughput", "throughput@1", "1/s", "throughput (1/s)"),
        ("cold-start", "cold_start", "ms", "cold-start (ms)"),
    ],
)
def test_the_steps_are_shown_in_what_was_minimized(minimize, name, unit, axis):
    def measured(found, value):
        return replace(found, evaluation=Evaluation({name: Measurement.exact(value, unit)}))

    found = outcome()
    best = measured(found.best, 1000.0)
    found = replace(found, baseline=measured(found.baseline, 4000.0), trials=(best,), best=best)
    drawn = charts(page(found, circumstances(minimize=minimize)))["waterfall"]
    assert drawn["layout"]["yaxis"]["title"]["text"] == axis
    assert drawn["data"][0]["y"] == [4000.0, -3000.0, 1000.0]
    better = drawn["data"][0]["decreasing" if minimize != "throughput" else "increasing"]
    assert better == {"marker": {"color": "#0f766e"}}


def test_where_the_original_is_kept_or_nothing_was_measured_there_are_no_steps():
    kept = page(outcome(best="baseline"), circumstances())
    unknown = page(outcome(), circumstances(minimize="memory"))
    for text in (kept, unknown):
        assert charts(text)["waterfall"]["data"] == []
        assert "What each step brought" not in text


@pytest.mark.parametrize(("minimize", "side"), [("latency", "left"), ("throughput", "right")])
def test_the_page_says_on_which_side_the_better_ones_stand(minimize, side):
    assert f"Further {side} is better" in page(outcome(), circumstances(minimize=minimize))
