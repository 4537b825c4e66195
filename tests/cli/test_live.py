"""What a study tells line by line where there is no terminal, and for machines."""

import json
import math

from strop.cli.live import listener
from strop.search.events import StageStarted, StepProgressed, StudyFinished, TrialFinished


def told(capsys, event, **options):
    with listener(**options) as listen:
        listen(event)
    return capsys.readouterr().out


def test_what_is_only_shown_for_comparison_is_neither_within_nor_over_the_limit(capsys):
    said = told(capsys, TrialFinished(2, "as it is @ keras_predict", "done", "", 30.0, "ms", 0.1))
    assert "keras_predict" in said
    assert "over" not in said
    assert "ok" not in said


def test_what_misses_the_limit_is_marked(capsys):
    line = told(capsys, TrialFinished(3, "r", "done", "drops", 1.0, "ms", 2.0, 0.2))
    assert line.startswith("    3  over")


def test_the_outcome_is_left_to_the_command_which_says_it_once(capsys):
    assert told(capsys, StudyFinished("out", "3× faster")) == ""


def test_lines_for_machines_are_json_for_every_reader(capsys):
    line = told(capsys, TrialFinished(4, "r", "done", "", 1.0, "ms", 2.0, math.inf), as_json=True)
    assert json.loads(line, parse_constant=lambda word: 1 / 0)["drop"] == "Infinity"


def test_of_a_long_step_a_line_is_written_each_tenth(capsys):
    with listener() as listen:
        for share in (0.01, 0.1, 0.15, 0.19, 0.5, 0.55):
            listen(StepProgressed("prune.magnitude", share, "training"))
        listen(StageStarted("next"))
        listen(StepProgressed("cluster.weights", 0.3, "training"))
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "   10%  training",
        "   50%  training",
        "next",
        "   30%  training",
    ]
