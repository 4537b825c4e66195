"""The benchmark: strop's choice against every engine used by hand, case by case, batch 1 and 32.

``make bench`` goes on where it stopped: each figure is kept in the cache as soon as it is there. ``--case`` and
``--batch`` choose; ``--report`` only writes RESULTS.md from what there is.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.by_hand.ways import WAYS
from benchmarks.cases import CASES, Case, CaseUnavailableError, case_named
from benchmarks.places import cache_folder
from benchmarks.race import ROUNDS, race

BATCHES = (1, 32)
MAX_DROP = 0.01
MIN_SQNR_DB = 20.0
_RESULTS = Path(__file__).with_name("RESULTS.md")
_STUDY_SECONDS = 3_600


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
    _RESULTS.write_text(report())
    print(f"written: {_RESULTS.name}")
    return 0


def folder_of(case: str, batch: int) -> Path:
    """Return where the figures of a case are kept."""
    return cache_folder() / "results" / f"{case}-{batch}"


def measure(case: Case, batch: int, effort: str) -> None:
    """Measure one case: the list by hand, strop, and the race between the best of both."""
    folder = folder_of(case.name, batch)
    folder.mkdir(parents=True, exist_ok=True)
    try:
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
        study.write_text(json.dumps(_strop(case, model, batch, effort, folder)))
    best = best_by_hand(case.name, batch)
    outcome = folder / f"race-{effort}.json"
    found = json.loads(study.read_text())
    if best and not outcome.exists() and "error" not in found:
        print(f"{case.name}, batch {batch}: race against {best['entry']}", flush=True)
        result = race(case.name, batch, best["entry"], folder / f"study-{effort}" / "best")
        outcome.write_text(json.dumps({"entry": best["entry"], **asdict(result)}))


def _by_hand(case: str, batch: int, way: str, out: Path) -> None:
    start = time.perf_counter()
    draft = out.with_suffix(".draft")
    command = [sys.executable, "-m", "benchmarks.by_hand", f"--case={case}", f"--entry={way}"]
    subprocess.run(
        [*command, f"--batch={batch}", f"--out={draft}"], check=False, capture_output=True
    )
    found = json.loads(draft.read_text()) if draft.exists() else {"error": "wrote nothing"}
    draft.unlink(missing_ok=True)
    found["wall_seconds"] = time.perf_counter() - start
    out.write_text(json.dumps(found))


def _strop(case: Case, model: Path, batch: int, effort: str, folder: Path) -> dict[str, Any]:
    """Run `strop optimize` as a user would, in a process of its own."""
    data = folder / "data.npz"
    _write_data(case, data)
    command = [
        sys.executable, "-m", "strop", "optimize", str(model), "--data", str(data),
        "--batch", str(batch), "--effort", effort, "--output", str(folder / f"study-{effort}"),
    ]  # fmt: skip
    if case.metric:
        command += ["--max-drop", str(MAX_DROP)]
    else:
        # Random weights have no answers worth agreeing with; both sides keep the same floor instead.
        command += ["--min-sqnr", str(MIN_SQNR_DB), "--max-drop", "1"]
    start = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_STUDY_SECONDS, check=False
    )
    seconds = time.perf_counter() - start
    data.unlink()
    if done.returncode:
        return {"error": f"exit code {done.returncode}: {done.stderr[-1000:]}", "seconds": seconds}
    certificate = json.loads(
        (folder / f"study-{effort}" / "best" / "certificate.json").read_text()
    )
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
    files = sorted(folder_of(case, batch).glob("way-*.json"))
    return [json.loads(file.read_text()) for file in files]


def _milliseconds(found: dict[str, Any]) -> float:
    timing = found.get("timing") or {}
    seconds = timing.get("median_seconds") or timing.get("median") or math.inf
    return float(seconds) * 1e3


def best_by_hand(case: str, batch: int) -> dict[str, Any] | None:
    """Return the fastest way by hand that keeps the limit."""
    kept = [found for found in ways_of(case, batch) if keeps_the_limit(found)]
    return min(kept, key=_milliseconds, default=None)


def report() -> str:
    """Return RESULTS.md, made of every figure there is."""
    lines = [
        "# Results",
        "",
        "strop's choice against the best of the by-hand list that keeps the same limit "
        f"(accuracy within {MAX_DROP}, or SQNR of at least {MIN_SQNR_DB:g} dB where weights are random), both in "
        f"processes of their own, {ROUNDS} rounds in turn. Below 1 strop is faster; the interval is at 95 %.",
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
    return "\n".join([*lines, "", *_by_hand_tables()]) + "\n"


def _row(case: str, batch: int, effort: str) -> tuple[str, float | None, dict[str, Any] | None]:
    folder = folder_of(case, batch)
    study, outcome = folder / f"strop-{effort}.json", folder / f"race-{effort}.json"
    if not study.exists():
        return "", None, None
    found = json.loads(study.read_text())
    if "error" in found:
        return f"| {case} | {batch} | | | failed: {found['error'][:80]} | | | |", None, None
    ways = ways_of(case, batch)
    spent = sum(way.get("wall_seconds", 0.0) for way in ways)
    share = f"{found['seconds']:.0f} s / {spent:.0f} s" if len(ways) == len(WAYS) else ""
    if not outcome.exists():
        return (
            f"| {case} | {batch} | | | `{found['recipe']}` | | | {share} |",
            None,
            found["machine"],
        )
    raced = json.loads(outcome.read_text())
    value, low, high = raced["ratio"]
    row = (
        f"| {case} | {batch} | {raced['entry']} | {raced['other_ms']:.3g} | `{found['recipe']}` | "
        f"{raced['strop_ms']:.3g} | {value:.3f} ({low:.3f} to {high:.3f}) | {share} |"
    )
    return row, value, found["machine"]


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
