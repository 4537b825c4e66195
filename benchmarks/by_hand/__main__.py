"""Carry out one way of the by-hand list on one case; see the package's docstring.

Each step runs in a process of its own: the converters abort now and then, and what is timed must
not share its process with them. ``--serve`` keeps the opened model and times calls on request,
one JSON line for each line read::

    time 50   →  {"seconds": [0.0012, …]}
    quit
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from benchmarks.by_hand.judge import Clock, judge
from benchmarks.by_hand.way import Workplace
from benchmarks.by_hand.ways import WAYS, way_named
from benchmarks.by_hand.with_tensorflow import compute_reference
from benchmarks.cases import CASES, CaseUnavailableError, case_named
from benchmarks.places import cache_folder

_STEP_TIMEOUT_S = 1_800
# The last words of an engine are where the reason stands.
_REASON_CHARACTERS = 2_000


def main() -> int:
    """Parse the command line and do what it says."""
    arguments = _parser().parse_args()
    # Engines print to the standard output; the protocol keeps the real one for itself.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if arguments.list:
        answers.writelines(f"{way.name:30} {way.how}\n" for way in WAYS)
        return 0
    case = case_named(arguments.case)
    folder = arguments.workdir or cache_folder() / "by_hand" / case.name
    workplace = Workplace(case, arguments.batch, folder)
    if arguments.step:
        result = _carry_out(arguments.step, arguments, workplace)
        arguments.out.write_text(json.dumps(result))
        return 0
    if arguments.serve:
        return _serve(arguments, workplace, answers)
    result = _measure(arguments, workplace)
    text = json.dumps(result, indent=2)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    else:
        answers.write(text + "\n")
    return 1 if "error" in result else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.by_hand", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--list", action="store_true", help="print the list and how each is done")
    parser.add_argument("--case", choices=[case.name for case in CASES], default=CASES[0].name)
    parser.add_argument("--entry", choices=[way.name for way in WAYS], default=WAYS[0].name)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where the result goes; printed by default")
    parser.add_argument("--workdir", type=Path, help="where files are made; the cache by default")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long to time; 0 for not")
    parser.add_argument("--serve", action="store_true", help="stay alive and time on request")
    parser.add_argument("--step", choices=["reference", "build", "judge"], help=argparse.SUPPRESS)
    return parser


def _measure(arguments: argparse.Namespace, workplace: Workplace) -> dict[str, Any]:
    """Build, judge and time, and say how long each took or why it failed."""
    result: dict[str, Any] = {
        "case": arguments.case,
        "entry": arguments.entry,
        "batch": arguments.batch,
    }
    try:
        workplace.case.model()
    except CaseUnavailableError as reason:
        return result | {"skipped": str(reason)}
    for step in ("reference", "build", "judge"):
        start = time.perf_counter()
        result |= _in_process(step, arguments, workplace)
        result[f"{step}_process_seconds"] = time.perf_counter() - start
        if "error" in result:
            return result | {"failed_step": step, "costs": workplace.costs()}
    return result | {"costs": workplace.costs()}


def _in_process(step: str, arguments: argparse.Namespace, workplace: Workplace) -> dict[str, Any]:
    """Run one step of `_carry_out` in a new process and return what it found."""
    with tempfile.TemporaryDirectory() as scratch:
        out, log = Path(scratch) / "out.json", Path(scratch) / "log.txt"
        options = {
            "case": arguments.case,
            "entry": arguments.entry,
            "batch": arguments.batch,
            "seconds": arguments.seconds,
            "workdir": workplace.folder,
            "step": step,
            "out": out,
        }
        command = [sys.executable, "-m", "benchmarks.by_hand"]
        command += [f"--{name}={value}" for name, value in options.items()]
        with log.open("w") as stderr:
            try:
                done = subprocess.run(
                    command, stdout=stderr, stderr=stderr, timeout=_STEP_TIMEOUT_S, check=False
                )
            except subprocess.TimeoutExpired:
                return {"error": f"not done after {_STEP_TIMEOUT_S} s"}
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(out.read_text())
            return found
        words = log.read_text(errors="replace").strip()[-_REASON_CHARACTERS:]
        return {"error": f"{_how_it_ended(done.returncode)}:\n{words}"}


def _how_it_ended(code: int) -> str:
    return f"died of {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _carry_out(step: str, arguments: argparse.Namespace, workplace: Workplace) -> dict[str, Any]:
    way = way_named(arguments.entry)
    if step == "reference":
        compute_reference(workplace)
        return {}
    if step == "build":
        way.build(workplace)
        return {}
    start = time.perf_counter()
    opened = way.open(workplace)
    result: dict[str, Any] = {"open_seconds": time.perf_counter() - start}
    start = time.perf_counter()
    result["quality"] = asdict(judge(opened, workplace))
    result["judge_seconds"] = time.perf_counter() - start
    if arguments.seconds > 0:
        start = time.perf_counter()
        clock = Clock(opened, workplace)
        clock.warm_up()
        result["timing"] = clock.time_for(arguments.seconds)
        result["timing_seconds"] = time.perf_counter() - start
    return result


def _serve(arguments: argparse.Namespace, workplace: Workplace, answers: TextIO) -> int:
    """Open the model and answer requests until ``quit`` or the end of the input."""
    failure = _in_process("build", arguments, workplace)
    if failure:
        answers.write(json.dumps(failure) + "\n")
        return 1
    start = time.perf_counter()
    opened = way_named(arguments.entry).open(workplace)
    clock = Clock(opened, workplace)
    clock.warm_up()
    ready = {"ready": True, "open_seconds": time.perf_counter() - start}
    answers.write(json.dumps(ready) + "\n")
    for line in sys.stdin:
        match line.split():
            case ["time", count] if count.isdecimal():
                answers.write(json.dumps({"seconds": clock.time_calls(int(count))}) + "\n")
            case ["quit"]:
                break
            case _:
                answers.write(json.dumps({"error": f"not 'time N' or 'quit': {line!r}"}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
