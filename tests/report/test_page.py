"""The page of outcomes that are rare: the original kept, errors without bound."""

import json
import math
import re

from strop.report.page import page
from tests.report.made import circumstances, outcome


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
