"""The benchmark: strop's choice against every engine used by hand, case by case, batch 1 and 32.

``make bench`` goes on where it stopped: each figure is kept in the cache as soon as it is there. ``--case`` and
``--batch`` choose; ``--report`` only writes RESULTS.md from what there is.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.by_hand.ways import WAYS
from benchmarks.cases import BATCHES, CASES, Case, CaseUnavailableError, case_named
from benchmarks.figures import MAX_DROP, MIN_SQNR_DB, best_by_hand
from benchmarks.places import cache_folder, figures_folder
from benchmarks.promises import measure_promises
from benchmarks.race import HEATS, judged, race
from benchmarks.report import report
from benchmarks.train_text_models import TEXT_MODELS

_ROOT = Path(__file__).resolve().parent.parent
_RESULTS = Path(__file__).with_name("RESULTS.md")
_STUDY_SECONDS = 3_600


def main() -> int:
    """Measure what is missing, then write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--batch", action="append", type=int, choices=BATCHES)
    parser.add_argument("--effort", default="standard", choices=["quick", "standard", "thorough"])
    parser.add_argument(
        "--again", action="store_true", help="measure also what was measured before"
    )
    parser.add_argument("--report", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    if not arguments.report:
        for batch in arguments.batch or BATCHES:
            for name in arguments.case or [case.name for case in CASES]:
                if arguments.again:
                    forget(name, batch, arguments.effort)
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


def forget(case: str, batch: int, effort: str) -> None:
    """Remove what was measured of a case, and the study, whose trials would be taken from its ledger."""
    shutil.rmtree(folder_of(case, batch), ignore_errors=True)
    shutil.rmtree(study_of(case, batch, effort), ignore_errors=True)


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
    rivals = best_by_hand(folder)
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
    return {
        **asdict(worst),
        "heats": HEATS,
        "quality": quality,
        "rivals": [asdict(result) for result in results],
    }


def _by_hand(case: str, batch: int, way: str, out: Path) -> None:
    draft = out.with_suffix(".draft")
    command = [sys.executable, "-m", "benchmarks.by_hand", f"--case={case}", f"--entry={way}"]
    with (
        tempfile.TemporaryDirectory() as scratch
    ):  # ONNX Runtime's quantizers leave files where they run
        subprocess.run(
            [*command, f"--batch={batch}", f"--out={draft}"],
            check=False, capture_output=True, cwd=scratch, env={**os.environ, "PYTHONPATH": str(_ROOT)},
        )  # fmt: skip
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
        "measurements": certificate["measurements"],
        "baseline": certificate["baseline"],
        "paired": certificate["paired"],
        "trials": len((study / "trials.csv").read_text().splitlines()) - 1,
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


if __name__ == "__main__":
    sys.exit(main())
