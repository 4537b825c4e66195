"""What reports say, and that they say no more than was found."""

import math
import re
from dataclasses import replace

import pytest

from strop.core.evaluation import Evaluation, Measurement
from strop.core.recipe import Recipe
from strop.engine.pairs import Pair
from strop.report.markdown import markdown
from strop.report.page import page
from strop.report.words import gain, headline
from tests.report.made import circumstances, fidelity, outcome, trial


def text(*, page_of=False, **found):
    goal = {key: found.pop(key) for key in ("minimize",) if key in found}
    if "confidence" in found:
        goal["confidence"] = found["confidence"]
    written = page if page_of else markdown
    return written(outcome(**found), circumstances(**goal))


def test_a_smaller_model_that_is_slower_is_told_to_be_slower():
    said = headline(outcome(ms=2.6, ratio=0.25), circumstances(minimize="size"))
    assert said == "4.0× smaller, accuracy 0.954 → 0.95, but 1.30× slower"


@pytest.mark.parametrize("ms", [1.0, 2.0, 2.02])
def test_a_smaller_model_that_is_not_proved_slower_is_not(ms):
    assert "slower" not in headline(outcome(ms=ms, ratio=0.25), circumstances(minimize="size"))


@pytest.mark.parametrize(("confidence", "written"), [(0.9, "90 %"), (0.999, "99.9 %")])
def test_the_level_of_an_interval_is_the_one_that_was_used(confidence, written):
    said = text(confidence=confidence)
    assert f"drop (accuracy), {written} interval" in said
    assert f"upper bound at {written}" in said
    assert "drop (accuracy), 95 %" not in said


def test_the_page_shows_the_winners_drop_with_its_bound():
    shown = text(page_of=True)
    cards = re.search(r'<section class="cards">(.*?)</section>', shown, re.S).group(1)
    assert "0.004" in cards
    assert "at most 0.009 at 95 %" in cards


def test_a_bound_that_is_not_known_is_told_in_words():
    assert "(0 to 0.009)" in text()
    unknown = fidelity(high=math.inf)
    found = replace(
        outcome(), confirmed=replace(unknown, drop=replace(unknown.drop, low=-math.inf))
    )
    assert "0.004 (interval not known)" in markdown(found, circumstances())
    assert "bound not known" in page(found, circumstances())


def test_the_report_says_which_samples_its_figures_of_quality_are_from():
    said = text()
    assert "In the table, quality is on *select* (250 samples)" in said
    assert "the winner's on *confirm* (250 samples)" in said
    assert "| quality (select) |" in said
    assert "quality (select)" in text(page_of=True)


def test_each_batch_size_that_was_asked_for_has_its_lines():
    found = outcome()
    late = {"latency_p90@8": Measurement(7.0, "ms", 7.0, 7.0, 90)}
    best = replace(
        found.best, evaluation=Evaluation({**found.best.evaluation.measurements, **late})
    )
    said = markdown(replace(found, best=best), circumstances(batch_sizes=(1, 8)))
    assert "| latency, median, batch 1 | 2 ms | 1 ms |" in said
    assert "| latency, 90 %, batch 8 | – | 7 ms |" in said


@pytest.mark.parametrize(
    ("counted", "said"),
    [
        ({"parameters": 12_345.0, "macs": 6e6}, "12,345 parameters and takes 6,000,000 multiply-"),
        ({"parameters": 12_345.0}, "12,345 parameters and does not tell by its graph"),
    ],
)
def test_the_size_of_the_original_is_told_as_far_as_it_was_counted(counted, said):
    found = outcome()
    assert "parameters" not in markdown(found, circumstances())
    counts = {name: Measurement.exact(value, "count") for name, value in counted.items()}
    original = replace(found.baseline, evaluation=Evaluation(counts))
    assert said in markdown(replace(found, baseline=original), circumstances())


def test_a_drop_above_the_limit_on_the_unseen_samples_alone_is_told():
    found = outcome()
    unseen = fidelity(0.015, high=0.04, split="confirm")
    said = markdown(replace(found, confirmed=unseen), circumstances(max_drop=0.01))
    assert "| drop on select and confirm together |  | 0.0095 |" in said
    assert "On *confirm* alone the drop is above the limit, which" in said
    assert "together it is 0.0095, and the limit is held to that" in said
    assert "together" not in markdown(found, circumstances(max_drop=0.01))


def test_the_report_says_how_often_the_unseen_samples_were_looked_at():
    assert "candidates were judged on *confirm*" not in text()
    said = markdown(replace(outcome(), looks=3), circumstances())
    assert "3 candidates were judged on *confirm*, one after the other" in said


def test_the_report_does_not_claim_processes_that_there_were_not():
    said = text()
    assert "Each trial ran in a process of its own" not in said
    assert "one an engine" in said


def test_only_times_are_said_to_have_been_timed_in_turn():
    assert "Finalists were timed in 24 rounds" in text()
    assert "at 95 % for all finalists at once" in text()
    said = text(minimize="size", ratio=0.25)
    assert "Finalists were timed" not in said
    assert "| paired | 1× | 4.0× smaller" in said


def test_engines_that_were_not_tried_are_listed_with_the_reason(monkeypatch):
    from strop.core import registry
    from strop.core.contracts import Requirement

    absent = registry.runtimes.get("openvino")
    monkeypatch.setattr(
        absent, "requires", (Requirement("openvino_absent", "openvino-absent", "openvino"),)
    )

    said = text()

    assert (
        "OpenVINO was not tried: the package 'openvino-absent' is not installed (pip install strop[openvino])."
        in said
    )
    assert "LiteRT was not tried: it was not asked for, or nothing leads to it." in said
    assert "ONNX Runtime was not tried" not in said


def test_passes_that_can_not_run_are_listed_with_the_reason(monkeypatch):
    from strop.core import registry
    from strop.core.contracts import Requirement

    absent = registry.passes.get("quantize.onnx_static")
    monkeypatch.setattr(absent, "requires", (Requirement("gone_gone", "gone", "onnx"),))
    assert "quantize.onnx_static was not tried: the package 'gone' is not installed" in text()


def test_gains_stand_on_one_measure():
    """The winner's is paired, and the others' are told by it: the original's lone time may have been a slow one."""
    found = outcome(ms=1.0, ratio=0.8)
    slower = trial(3, Recipe((), "onnxruntime", {"threads": 2}), 1.5, 4000)
    found = replace(found, trials=(*found.trials, slower))
    assert gain(found, found.best, circumstances()) == pytest.approx(1.25)
    assert gain(found, slower, circumstances()) == pytest.approx(1.25 / 1.5)
    assert gain(found, found.baseline, circumstances()) == 1


def test_the_times_of_paired_rounds_stand_beside_their_ratio():
    (pair,) = outcome().pairs
    timed = replace(
        pair,
        latency=Measurement(0.9, "ms", 0.9, 0.9),
        reference_latency=Measurement(1.8, "ms", 1.8, 1.8),
    )
    said = markdown(replace(outcome(), pairs=(timed,)), circumstances())
    assert "| paired | 1.8 ms | 900 µs, 2.0× faster" in said
    assert Pair.from_json(timed.to_json()) == timed


def raced(*others):
    """An outcome whose winner raced with others, each by its ratio to the winner and that ratio's lower end."""
    found = outcome()
    pairs = [
        replace(
            found.pairs[0],
            name=name,
            to_first=Measurement(ratio, "ratio", low, 2 * ratio, 24, 0.95),
        )
        for name, ratio, low in others
    ]
    return replace(found, pairs=(*found.pairs, *pairs))


def test_finalists_that_may_be_as_good_as_the_winner_are_named():
    told = markdown(raced(("close", 1.01, 0.99), ("behind", 1.2, 1.1)), circumstances())
    assert "Not told apart from the best: close." in told
    assert "Not told apart" not in markdown(raced(("behind", 1.2, 1.1)), circumstances())


def test_a_stochastic_original_sets_the_limit_where_it_varies_more_than_that():
    found = outcome()
    varying = replace(
        found.best,
        evaluation=replace(found.best.evaluation, fidelity=replace(fidelity(), floor=0.03)),
    )
    told = markdown(replace(found, trials=(found.baseline, varying)), circumstances())
    assert "a drop of at most 0.01, or of 0.03, which the original shows against itself." in told
    assert "against itself" not in markdown(found, circumstances())
