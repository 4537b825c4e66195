"""What is asked, as a value and as the line that asks it again."""

from pathlib import Path

import pytest

import strop
from strop.core.contracts import Effort
from strop.search.request import spelled_call

DEFAULTS = {
    "max_drop": 0.01, "minimize": "latency", "batch_sizes": (1,), "metric": None, "confidence": None,
    "effort": "standard", "budget_seconds": None, "output": None, "seed": 0, "listen": print, "request": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"model": "a.keras", "samples": None}, "strop.optimize('a.keras')"),
        (
            {"model": Path("a.keras"), "samples": "val.npz", "max_drop": 0.02, "effort": "quick"},
            "strop.optimize('a.keras', 'val.npz', max_drop=0.02, effort='quick')",
        ),
        ({"model": object(), "samples": object()}, "strop.optimize(model, samples)"),
        (
            {
                "model": "a.keras",
                "samples": "val.npz",
                "request": strop.Request(
                    strop.Goal(max_drop=0.02),
                    Effort.QUICK,
                    options=strop.Options({"x": (None, 3)}),
                ),
            },
            "strop.optimize('a.keras', 'val.npz', request=strop.Request(goal=strop.Goal(max_drop=0.02), "
            "effort='quick', options=strop.Options(shapes={'x': (None, 3)})))",
        ),
    ],
)
def test_the_line_asks_for_the_same_again(given, line):
    assert spelled_call(strop.optimize, {**DEFAULTS, **given}) == line


def test_what_is_asked_twice_is_refused():
    with pytest.raises(strop.StropError, match="give one or the other"):
        strop.optimize("a.keras", max_drop=0.5, request=strop.Request())


def test_an_effort_may_be_a_word():
    assert strop.Request(effort="quick").effort is Effort.QUICK
