"""What strop promises beside its choice: start-up times, the Predictor's overhead, cleaned graphs, zeros, false winners."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.places import cache_folder, figures_folder

_STARTS = 7
_SAME_TIMES = 200


def measure_promises() -> None:
    """Measure what is not measured yet."""
    for name, (title, measure) in _PROMISES.items():
        out = figures_folder(f"promise-{name}.json")
        if not out.exists():
            print(title, flush=True)
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(measure()))


def report_promises(folder: Path) -> list[str]:
    """Return the lines of RESULTS.md on what was measured on the machine of `folder`."""
    lines = []
    for name, (title, _) in _PROMISES.items():
        out = folder / f"promise-{name}.json"
        if out.exists():
            lines += [f"### {title}", "", *json.loads(out.read_text()), ""]
    return lines


def _median_start(code: list[str]) -> float:
    """Return the median seconds of fresh processes, the bare interpreter's start taken off."""

    def once(arguments: list[str]) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        return time.perf_counter() - start

    gaps = [once(code) - once(["-c", "pass"]) for _ in range(_STARTS)]
    return float(np.median(gaps))


def _starts() -> list[str]:
    imported = _median_start(["-c", "import strop"])
    used = _median_start(["-c", "import strop; strop.optimize"])
    helped = _median_start(["-m", "strop", "--help"])
    return [
        f"`import strop`: {imported:.2f} s, and {used:.2f} s with all behind `strop.optimize`; `strop --help`: "
        f"{helped:.2f} s (medians of {_STARTS} fresh processes, beyond the interpreter's own start)."
    ]


def _overhead() -> list[str]:
    done = _run(["-m", "benchmarks.predictor_overhead"])
    return [line for line in done.splitlines() if line.startswith("|")]


def _same() -> list[str]:
    artifact = cache_folder() / "studies" / "resnet8-1-standard" / "best"
    if not artifact.exists():
        return ["Not measured: it needs the study of resnet8 at batch 1."]
    times = str(_SAME_TIMES)
    done = _run(["-m", "benchmarks.same_against_same", str(artifact), "--times", times])
    return [done.splitlines()[-1] + "."]


def _graphs() -> list[str]:
    return _run(["-m", "benchmarks.graphs"]).splitlines()


def _sparse() -> list[str]:
    return _run(["-m", "benchmarks.sparse"]).splitlines()


def _run(arguments: list[str]) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout


_PROMISES: dict[str, tuple[str, Callable[[], Any]]] = {
    "starts": ("Starting", _starts),
    "overhead": ("What a Predictor adds to the engine's own call", _overhead),
    "graphs": ("Cleaned graphs in TensorFlow", _graphs),
    "sparse": ("Zeros left out of LiteRT files", _sparse),
    "same": ("The same artifact against itself: how often a winner is declared", _same),
}
