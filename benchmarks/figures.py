"""The figures of one case, as they were kept, and what follows from them: who keeps the limit, who is best by hand."""

import json
import math
import re
from pathlib import Path
from typing import Any

MAX_DROP = 0.01
MIN_SQNR_DB = 20.0
# Ways by hand were timed one after another, so those that came near the fastest race too.
NEAR, MOST_RIVALS = 1.5, 4


def ways_in(folder: Path) -> list[dict[str, Any]]:
    """Return what was found of each way by hand."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob("way-*.json"))]


def keeps_the_limit(found: dict[str, Any]) -> bool:
    """Say whether a way by hand keeps the same limit that strop is held to."""
    quality = found.get("quality")
    if not quality or not quality["finite"]:
        return False
    if quality["accuracy"] is not None:
        return bool(quality["reference_accuracy"] - quality["accuracy"] <= MAX_DROP)
    return bool(quality["sqnr_db"] >= MIN_SQNR_DB)


def milliseconds(found: dict[str, Any]) -> float:
    """Return a way's median milliseconds a call; infinite where it was not timed."""
    timing = found.get("timing") or {}
    seconds = timing.get("median_seconds") or timing.get("median") or math.inf
    return float(seconds) * 1e3


def best_by_hand(folder: Path) -> list[str]:
    """Return the fastest ways by hand that keep the limit: those that another day might put first."""
    kept = sorted((way for way in ways_in(folder) if keeps_the_limit(way)), key=milliseconds)
    near = [way["entry"] for way in kept if milliseconds(way) <= NEAR * milliseconds(kept[0])]
    return near[:MOST_RIVALS]


def list_seconds(ways: list[dict[str, Any]]) -> float:
    """Return what the list by hand takes one after another: what several share made once, nothing imported twice.

    Making files (conversion, calibration), and opening, judging and timing each way; the imports of engines, once
    a list, are left out.
    """
    made: dict[str, dict[str, float]] = {}
    for way in ways:
        fixed = {name: re.search(r"batch(\d+)", name) for name in way.get("costs", {})}
        # The folder holds what was made for other batch sizes too.
        mine = [n for n, found in fixed.items() if not found or int(found[1]) == way["batch"]]
        made |= {name: way["costs"][name] for name in mine}
    parts = ("open_seconds", "judge_seconds", "timing_seconds")
    each = sum(way.get(part, 0.0) for way in ways for part in parts)
    return sum(cost["total"] for cost in made.values()) + each
