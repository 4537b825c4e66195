"""RESULTS.md: a section for each kind of machine that figures were taken on."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.by_hand.ways import WAYS
from benchmarks.cases import BATCHES, CASES
from benchmarks.compression.scale import WHOLE
from benchmarks.compression.table import pace_tables, tables
from benchmarks.figures import (
    MAX_DROP,
    MIN_SQNR_DB,
    MOST_RIVALS,
    NEAR,
    keeps_the_limit,
    list_seconds,
    milliseconds,
    ways_in,
)
from benchmarks.places import reported_folders
from benchmarks.promises import report_promises
from benchmarks.race import ROUNDS
from strop.core.evaluation import Measurement
from strop.report.words import quantity

_EFFORTS = ("standard", "quick", "thorough")


@dataclass(frozen=True)
class _Row:
    """One case's line of the table; the ratio where it raced and kept the limit."""

    text: str
    ratio: float | None
    machine: dict[str, Any] | None


def report() -> str:
    """Return RESULTS.md, made of every figure there is."""
    sections: list[str] = []
    ratios: list[float] = []
    raced = 0
    for folder in reported_folders():
        lines, found = _section(folder)
        sections += lines
        ratios += found
        raced += bool(found)
    lines = [
        "# Results",
        "",
        "strop's choice against the best of the by-hand list that keeps the same limit "
        f"(accuracy within {MAX_DROP}, or SQNR of at least {MIN_SQNR_DB:g} dB where weights are random), both in "
        f"processes of their own, {ROUNDS} rounds in turn, shared out to heats of fresh processes. Up to {MOST_RIVALS} that were within {NEAR - 1:.0%} of the "
        "fastest by hand race; the one that strop does worst against stands here. Below 1 strop is faster; the "
        "interval is at 95 %.",
        "",
        "Made by `make bench`; what is missing was not measured yet.",
        "",
        f"{_mean(ratios)} on {raced} machine{'s' if raced > 1 else ''}.",
        "",
    ]
    trained = tables(WHOLE.figures())
    if trained:
        sections += ["## What training makes of networks", "", *trained]
    return "\n".join([*lines, *sections]).rstrip() + "\n"


def _mean(ratios: list[float]) -> str:
    if not ratios:
        return "No race yet"
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return f"Geometric mean over {len(ratios)} races: {mean:.3f} (strop {1 / mean:.2f}×)"


def _section(folder: Path) -> tuple[list[str], list[float]]:
    """Return the lines on one machine, and the ratios of its races."""
    named = [(case.name, batch) for batch in BATCHES for case in CASES]
    rows = [row for case, batch in named if (row := _row(folder, case, batch))]
    ratios = [row.ratio for row in rows if row.ratio]
    if not rows:  # a machine that only training was timed on
        paces = sorted((folder / "compression").glob("*.json"))
        names = {json.loads(one.read_text())["processor"] for one in paces}
        title = f"## {', '.join(sorted(names))}: training alone"
        return [title, "", *pace_tables(folder / "compression")], ratios
    machine = next((row.machine for row in rows if row.machine), None)
    lines = [f"## {_machine_name(machine)}", ""]
    if machine:
        lines += [f"{machine['system']}; {', '.join(machine['instructions'])}.", ""]
    lines += [
        "| case | batch | best by hand | ms | strop | ms | strop / by hand | heats | study / list |",
        "|---|--:|---|--:|---|--:|--:|--:|--:|",
        *(row.text for row in rows),
        "",
        f"{_mean(ratios)}.",
        "",
    ]
    quick = folder / "resnet8-1" / "strop-quick.json"
    if quick.exists():
        seconds = json.loads(quick.read_text())["seconds"]
        lines += [f"`--effort quick` on resnet8 at batch 1 took {seconds:.0f} s.", ""]
    return [
        *lines,
        *_made(folder),
        *_by_hand_table(folder),
        *report_promises(folder),
        *pace_tables(folder / "compression"),
    ], ratios


def _machine_name(machine: dict[str, Any] | None) -> str:
    return f"{machine['processor']}, {machine['cores']} cores" if machine else "Another machine"


def _row(figures: Path, case: str, batch: int) -> _Row | None:
    """Return the line of a case, of the first effort that was measured; None where none was."""
    folder = figures / f"{case}-{batch}"
    for effort in _EFFORTS:
        if (folder / f"strop-{effort}.json").exists():
            return _row_of(folder, case, batch, effort)
    return None


def _row_of(folder: Path, case: str, batch: int, effort: str) -> _Row:
    study = json.loads((folder / f"strop-{effort}.json").read_text())
    if "error" in study:
        text = f"| {case} | {batch} | | | failed: {study['error'][:80]} | | | | |"
        return _Row(text, None, None)
    ways = ways_in(folder)
    share = f"{study['seconds']:.0f} s / {list_seconds(ways):.0f} s"
    if len(ways) < len(WAYS):
        share = ""
    outcome = folder / f"race-{effort}.json"
    raced = json.loads(outcome.read_text()) if outcome.exists() else {"error": "no race yet"}
    failure = raced.get("error") or ("" if keeps_the_limit(raced) else "misses the limit")
    if failure:
        text = f"| {case} | {batch} | | | `{study['recipe']}` | | {failure[:80]} | | {share} |"
        return _Row(text, None, study["machine"])
    value, low, high = raced["ratio"]
    text = (
        f"| {case} | {batch} | {raced['entry']} | {raced['other_ms']:.3g} | `{study['recipe']}` | "
        f"{raced['strop_ms']:.3g} | {value:.3f} ({low:.3f} to {high:.3f}) | {raced.get('heats', 1)} | {share} |"
    )
    return _Row(text, value, study["machine"])


def _made(figures: Path) -> list[str]:
    """Return the table of what a user gets: the original as its owner runs it, and the winner."""
    rows = []
    for batch in BATCHES:
        for case in CASES:
            file = figures / f"{case.name}-{batch}" / "strop-standard.json"
            study = json.loads(file.read_text()) if file.exists() else {}
            if "measurements" in study:
                rows.append(f"| {case.name}, {batch} | {' | '.join(_before_and_after(study))} |")
    if not rows:
        return []
    return [
        "### What strop made: the original, and the winner",
        "",
        "Latency and gain are of paired rounds in turn.",
        "",
        "| case, batch | latency | gain | size | cold start | peak memory | drop | trials |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
        *rows,
        "",
    ]


def _before_and_after(study: dict[str, Any]) -> list[str]:
    before, after = study["baseline"]["measurements"], study["measurements"]

    def both(name: str) -> str:
        return f"{_amount(before.get(name))} → {_amount(after.get(name))}"

    gain = "–"
    if study["paired"]:
        ratio = study["paired"]["ratio"]
        value, low, high = (1 / ratio[end] for end in ("value", "high", "low"))
        gain = f"{value:.3g}× ({low:.3g} to {high:.3g})"
    drop = f"{study['fidelity']['drop']['value']:.3g} ({study['fidelity']['drop_of']})"
    figures = [both(name) for name in ("size", "cold_start", "peak_memory")]
    raced = study["paired"] or {}
    latency = f"{_amount(raced.get('reference_latency'))} → {_amount(raced.get('latency'))}"
    return [latency, gain, *figures, drop, str(study["trials"])]


def _amount(found: dict[str, Any] | None) -> str:
    return quantity(Measurement.from_json(found) if found else None)


def _by_hand_table(folder: Path) -> list[str]:
    names = [way.name for way in WAYS]
    rows = []
    for batch in BATCHES:
        for case in CASES:
            found = ways_in(folder / f"{case.name}-{batch}")
            by_name = {way["entry"]: way for way in found if "entry" in way}
            if by_name:
                cells = [_cell(by_name.get(name)) for name in names]
                rows.append(f"| {case.name}, {batch} | {' | '.join(cells)} |")
    return [
        "### By hand: median ms a call",
        "",
        "In brackets what misses the limit; a dash where it failed.",
        "",
        f"| case, batch | {' | '.join(names)} |",
        f"|---|{'--:|' * len(names)}",
        *rows,
        "",
    ]


def _cell(found: dict[str, Any] | None) -> str:
    if not found or "quality" not in found:
        return "–"
    text = f"{milliseconds(found):.3g}"
    return text if keeps_the_limit(found) else f"({text})"
