"""The benchmark: strop's choice against every engine used by hand, case by case, batch 1 and 32.

``make bench`` goes on where it stopped: each figure is kept in the cache as soon as it is there. ``--case`` and
``--batch`` choose; ``--report`` only writes RESULTS.md from what there is.
"""

import argparse
import json
import math
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.by_hand.ways import WAYS
from benchmarks.cases import CASES, Case, CaseUnavailableError, case_named
from benchmarks.places import cache_folder, figures_folder, reported_folder
from benchmarks.promises import measure_promises, report_promises
from benchmarks.race import ROUNDS, judged, race
from benchmarks.train_text_models import TEXT_MODELS

BATCHES = (1, 32)
MAX_DROP = 0.01
MIN_SQNR_DB = 20.0
_RESULTS = Path(__file__).with_name("RESULTS.md")
_STUDY_SECONDS = 3_600
# Ways by hand were timed one after another, so those that came near the fastest race too.
_NEAR, _MOST_RIVALS = 1.15, 3


def main() -> int:
    """Measure what is missing, then write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--batch", action="append", type=int, choices=BATCHES)
    parser.add_argument("--effort", default="standard", choices=["quick", "standard", "thorough"])
    parser.add_argument("--report", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    if not arguments.report:
        for batch in arguments.batch or BATCHES:
            for name in arguments.case or [case.name for case in CASES]:
                measure(case_named(name), batch, arguments.effort)
        if not arguments.case:
            measure_quick_study()
            measure_promises()
    _RESULTS.write_text(report())
    print(f"written: {_RESULTS.name}")
    return 0


def folder_of(case: str, batch: int) -> Path:
    """Return where this machine's figures of a case are kept."""
    return figures_folder(f"{case}-{batch}")


def study_of(case: str, batch: int, effort: str) -> Path:
    """Return the folder that strop writes for a case."""
    return cache_folder() / "studies" / f"{case}-{batch}-{effort}"


def measure(case: Case, batch: int, effort: str) -> None:
    """Measure one case: the list by hand, strop, and the race between the best of both."""
    folder = folder_of(case.name, batch)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if case.name in TEXT_MODELS:
            _train(case.name)
        model = case.model()
        case.draw()  # what is made on the first call is nobody's time
    except CaseUnavailableError as reason:
        print(f"{case.name}: skipped: {reason}")
        return
    for way in WAYS:
        out = folder / f"way-{way.name}.json"
        if not out.exists():
            print(f"{case.name}, batch {batch}: {way.name}", flush=True)
            _by_hand(case.name, batch, way.name, out)
    study = folder / f"strop-{effort}.json"
    if not study.exists():
        print(f"{case.name}, batch {batch}: strop, {effort}", flush=True)
        study.write_text(json.dumps(_strop(case, model, batch, effort)))
    rivals = best_by_hand(case.name, batch)
    outcome = folder / f"race-{effort}.json"
    if rivals and not outcome.exists() and "error" not in json.loads(study.read_text()):
        print(f"{case.name}, batch {batch}: race against {', '.join(rivals)}", flush=True)
        outcome.write_text(
            json.dumps(_raced(case.name, batch, rivals, study_of(case.name, batch, effort)))
        )


def _train(name: str) -> None:
    """Train a text model where it is not trained yet, in a process that takes its memory along when it ends."""
    command = [sys.executable, "-m", "benchmarks.train_text_models", "--model", name]
    subprocess.run(command, check=False, capture_output=True)


def measure_quick_study() -> None:
    """Run the study that is promised within two minutes."""
    case = case_named("resnet8")
    out = folder_of(case.name, 1) / "strop-quick.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.exists():
        print("resnet8, batch 1: strop, quick", flush=True)
        out.write_text(json.dumps(_strop(case, case.model(), 1, "quick")))


def _raced(case: str, batch: int, rivals: list[str], study: Path) -> dict[str, Any]:
    """Judge strop's choice as the ways by hand are judged, and let it race those that came near the fastest."""
    try:
        quality = judged(case, batch, study / "best")
        results = race(case, batch, rivals, study / "best")
    except (RuntimeError, subprocess.CalledProcessError) as error:
        return {"error": str(error)[:500]}
    # Which by hand is best is told by the race too: the one that strop's promise is hardest to keep against.
    worst = max(results, key=lambda result: result.ratio.high)
    return {**asdict(worst), "quality": quality, "rivals": [asdict(result) for result in results]}


def _by_hand(case: str, batch: int, way: str, out: Path) -> None:
    draft = out.with_suffix(".draft")
    command = [sys.executable, "-m", "benchmarks.by_hand", f"--case={case}", f"--entry={way}"]
    subprocess.run(
        [*command, f"--batch={batch}", f"--out={draft}"], check=False, capture_output=True
    )
    found = json.loads(draft.read_text()) if draft.exists() else {"error": "wrote nothing"}
    draft.unlink(missing_ok=True)
    if "error" in found:
        found["error"] = _last_words(found["error"])
    out.write_text(json.dumps(found))


def _last_words(error: str) -> str:
    """Return the last line of an error, without the folders of the machine it happened on."""
    return re.sub(r"(/[\w.\-]+)+/", "", error.strip().splitlines()[-1])[:500]


def _strop(case: Case, model: Path, batch: int, effort: str) -> dict[str, Any]:
    """Run `strop optimize` as a user would, in a process of its own."""
    study = study_of(case.name, batch, effort)
    study.parent.mkdir(parents=True, exist_ok=True)
    data = study.with_name(f"{study.name}.npz")
    _write_data(case, data)
    command = [
        sys.executable, "-m", "strop", "optimize", str(model), "--data", str(data),
        "--batch", str(batch), "--effort", effort, "--output", str(study),
    ]  # fmt: skip
    if case.metric:
        command += ["--max-drop", str(MAX_DROP)]
    else:
        # Random weights have no answers worth agreeing with; both sides keep the same floor instead.
        command += ["--min-sqnr", str(MIN_SQNR_DB), "--max-drop", "1"]
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_STUDY_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {_STUDY_SECONDS} s", "seconds": _STUDY_SECONDS}
    finally:
        data.unlink(missing_ok=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        return {"error": f"exit code {done.returncode}: {done.stderr[-1000:]}", "seconds": seconds}
    certificate = json.loads((study / "best" / "certificate.json").read_text())
    return {
        "seconds": seconds,
        "recipe": certificate["recipe_line"],
        "fidelity": certificate["fidelity"],
        "machine": certificate["machine"],
        "versions": certificate["versions"],
    }


def _write_data(case: Case, path: Path) -> None:
    """Write the case's samples as strop reads them: what is for calibrating, what is for judging."""
    splits = case.draw()
    (train,), (test,) = splits.calibrate.inputs.values(), splits.evaluate.inputs.values()
    arrays: dict[str, Any] = {"x_train": train, "x_test": test}
    if splits.calibrate.labels is not None:
        arrays |= {"y_train": splits.calibrate.labels, "y_test": splits.evaluate.labels}
    np.savez(path, **arrays)


def keeps_the_limit(found: dict[str, Any]) -> bool:
    """Say whether a way by hand keeps the same limit that strop is held to."""
    quality = found.get("quality")
    if not quality or not quality["finite"]:
        return False
    if quality["accuracy"] is not None:
        return bool(quality["reference_accuracy"] - quality["accuracy"] <= MAX_DROP)
    return bool(quality["sqnr_db"] >= MIN_SQNR_DB)


def ways_of(case: str, batch: int) -> list[dict[str, Any]]:
    """Return what was found of each way by hand."""
    files = sorted(reported_folder(f"{case}-{batch}").glob("way-*.json"))
    return [json.loads(file.read_text()) for file in files]


def _milliseconds(found: dict[str, Any]) -> float:
    timing = found.get("timing") or {}
    seconds = timing.get("median_seconds") or timing.get("median") or math.inf
    return float(seconds) * 1e3


def best_by_hand(case: str, batch: int) -> list[str]:
    """Return the fastest ways by hand that keep the limit: those that another day might put first."""
    kept = sorted(
        (found for found in ways_of(case, batch) if keeps_the_limit(found)), key=_milliseconds
    )
    near = [
        found["entry"] for found in kept if _milliseconds(found) <= _NEAR * _milliseconds(kept[0])
    ]
    return near[:_MOST_RIVALS]


def report() -> str:
    """Return RESULTS.md, made of every figure there is."""
    lines = [
        "# Results",
        "",
        "strop's choice against the best of the by-hand list that keeps the same limit "
        f"(accuracy within {MAX_DROP}, or SQNR of at least {MIN_SQNR_DB:g} dB where weights are random), both in "
        f"processes of their own, {ROUNDS} rounds in turn. Up to {_MOST_RIVALS} that were within {_NEAR - 1:.0%} of the "
        "fastest by hand race; the one that strop does worst against stands here. Below 1 strop is faster; the "
        "interval is at 95 %.",
        "",
        "Made by `make bench`; what is missing was not measured yet.",
        "",
        "| case | batch | best by hand | ms | strop | ms | strop / by hand | study / list |",
        "|---|--:|---|--:|---|--:|--:|--:|",
    ]
    ratios, machine = [], None
    for batch in BATCHES:
        for case in CASES:
            for effort in ("standard", "quick", "thorough"):
                row, ratio, where = _row(case.name, batch, effort)
                if row:
                    lines.append(row)
                    ratios += [ratio] if ratio else []
                    machine = where or machine
                    break
    if ratios:
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        lines += [
            "",
            f"Geometric mean over {len(ratios)} races: {mean:.3f} (strop {1 / mean:.2f}×).",
        ]
    if machine:
        lines += ["", f"On {machine['processor']}, {machine['cores']} cores, {machine['system']}; "
                  f"{', '.join(machine['instructions'])}."]  # fmt: skip
    quick = reported_folder("resnet8-1") / "strop-quick.json"
    if quick.exists():
        seconds = json.loads(quick.read_text())["seconds"]
        lines += ["", f"`--effort quick` on resnet8 at batch 1 took {seconds:.0f} s."]
    return "\n".join([*lines, "", *report_promises(), *_by_hand_tables()]) + "\n"


def _row(case: str, batch: int, effort: str) -> tuple[str, float | None, dict[str, Any] | None]:
    folder = reported_folder(f"{case}-{batch}")
    study, outcome = folder / f"strop-{effort}.json", folder / f"race-{effort}.json"
    if not study.exists():
        return "", None, None
    found = json.loads(study.read_text())
    if "error" in found:
        return f"| {case} | {batch} | | | failed: {found['error'][:80]} | | | |", None, None
    ways = ways_of(case, batch)
    spent = list_seconds(ways)
    share = f"{found['seconds']:.0f} s / {spent:.0f} s" if len(ways) == len(WAYS) else ""
    raced = json.loads(outcome.read_text()) if outcome.exists() else {"error": "no race yet"}
    if "error" in raced:
        row = f"| {case} | {batch} | | | `{found['recipe']}` | | {raced['error'][:80]} | {share} |"
        return row, None, found["machine"]
    if not keeps_the_limit(raced):
        row = f"| {case} | {batch} | | | `{found['recipe']}` | | misses the limit | {share} |"
        return row, None, found["machine"]
    value, low, high = raced["ratio"]
    row = (
        f"| {case} | {batch} | {raced['entry']} | {raced['other_ms']:.3g} | `{found['recipe']}` | "
        f"{raced['strop_ms']:.3g} | {value:.3f} ({low:.3f} to {high:.3f}) | {share} |"
    )
    return row, value, found["machine"]


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


def _by_hand_tables() -> list[str]:
    lines = [
        "## By hand: median ms a call",
        "",
        "In brackets what misses the limit; a dash where it failed.",
        "",
    ]
    names = [way.name for way in WAYS]
    lines += [f"| case, batch | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
    for batch in BATCHES:
        for case in CASES:
            by_name = {
                found["entry"]: found for found in ways_of(case.name, batch) if "entry" in found
            }
            if by_name:
                cells = [_cell(by_name.get(name)) for name in names]
                lines.append(f"| {case.name}, {batch} | {' | '.join(cells)} |")
    return lines


def _cell(found: dict[str, Any] | None) -> str:
    if not found or "quality" not in found:
        return "–"
    text = f"{_milliseconds(found):.3g}"
    return text if keeps_the_limit(found) else f"({text})"


if __name__ == "__main__":
    sys.exit(main())
