"""Repair takes a model whose answers the metric can't judge for one that misses the limit."""

from dataclasses import replace
from pathlib import Path

import pytest

from strop.core.contracts import Context
from strop.core.errors import JudgingError
from strop.core.evaluation import Goal
from strop.graph.repairing import repaired
from tests.report.made import SOURCE, fidelity

NAMES = ("stem", "middle", "head")
ERRORS = {"stem": 0.2, "middle": 0.1, "head": 0.3}


class Choosy(Context):
    """Judges by a metric that fails unless the head and the stem are in float."""

    seed, goal, workspace = 0, Goal(), Path()
    calibration = training = None

    def evaluate(self, model, *tail):
        if not {"head", "stem"} <= set(model.facts["left_in_float"]):
            raise JudgingError("the metric gave nan")
        return fidelity(0.0)

    def judge(self, answer):
        pytest.fail("repair judges finished models")

    def progress(self, fraction, note=""):
        pass


def test_a_metric_that_fails_on_a_step_of_repair_is_a_missed_limit():
    def quantized(left):
        return replace(SOURCE, facts={"left_in_float": dict.fromkeys(left, "asked for")})

    made = repaired(
        Choosy(),
        NAMES,
        lambda left: sum(error for name, error in ERRORS.items() if name not in left),
        quantized,
    )

    assert set(made.facts["left_in_float"]) == {"head", "stem"}
