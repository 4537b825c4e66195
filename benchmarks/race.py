"""What strop chose against the best by hand: in turn, round by round, each in processes of its own.

Both are timed by the same clock over the same samples. ``python -m benchmarks.race --case=resnet8 --batch=1
--artifact=FOLDER`` serves an artifact of strop's by the protocol of ``python -m benchmarks.by_hand --serve``.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks.by_hand.judge import Clock, judge
from benchmarks.by_hand.way import Opened, Workplace
from benchmarks.cases import case_named
from benchmarks.places import cache_folder
from strop.engine.pairs import PROCESS_SPREAD
from strop.numerics.statistics import Interval, ratio_interval, with_spread

ROUNDS = 60
# Fresh processes each: where memory happens to lie in one makes it faster or slower for good.
HEATS = 4
_ROUND_SECONDS = 0.15


class Runner:
    """A process that holds an opened model and times calls when asked.

    Args:
        command: What starts it; it answers ``ready`` and then each ``time N``.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        answer = self._read()
        if not answer.get("ready"):
            self.close()
            raise RuntimeError(str(answer.get("error", "the process ended"))[:500])
        self._calls = 1
        self._calls = max(1, int(_ROUND_SECONDS / self.round()))

    def round(self) -> float:
        """Return the median seconds of a call in one round."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"time {self._calls}\n")
        self._process.stdin.flush()
        return float(np.median(self._read()["seconds"]))

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {}

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Race:
    """The outcome of a race against one way by hand.

    Attributes:
        entry: The way's name.
        ratio: strop's time over the other's, with its 95 % interval.
        strop_ms: strop's median of rounds.
        other_ms: The other's.
    """

    entry: str
    ratio: Interval
    strop_ms: float
    other_ms: float


def race(case: str, batch: int, ways: Sequence[str], artifact: Path) -> list[Race]:
    """Return how strop's artifact fares against each of some ways by hand, all in turn in every round."""
    common = [f"--case={case}", f"--batch={batch}"]
    commands = {
        way: [sys.executable, "-m", "benchmarks.by_hand", *common, f"--entry={way}", "--serve"]
        for way in ways
    }
    commands["strop"] = [
        *[sys.executable, "-m", "benchmarks.race", *common],
        f"--artifact={artifact}",
    ]
    order = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(HEATS):
        with ExitStack() as stack:
            runners = {name: stack.enter_context(Runner(c)) for name, c in commands.items()}
            for _ in range(ROUNDS // HEATS):
                for name in order.permutation(list(runners)):
                    times[name].append(runners[name].round())
    middle = {name: float(np.median(rounds)) * 1e3 for name, rounds in times.items()}

    def ratio(way: str) -> Interval:
        # Two processes of the same thing differ for good by that much, which no round shows, and more heats average.
        spread = PROCESS_SPREAD / math.sqrt(HEATS)
        return with_spread(ratio_interval(times["strop"], times[way]), spread)

    return [Race(way, ratio(way), middle["strop"], middle[way]) for way in ways]


def judged(case: str, batch: int, artifact: Path) -> dict[str, Any]:
    """Return the quality of strop's artifact on all samples that the ways by hand are judged on."""
    command = [sys.executable, "-m", "benchmarks.race", f"--case={case}", f"--batch={batch}"]
    done = subprocess.run(
        [*command, f"--artifact={artifact}", "--judge"], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> int:
    """Serve an artifact, or judge it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.race")
    parser.add_argument("--case", required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument(
        "--judge", action="store_true", help="say how good its answers are and end"
    )
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    import strop

    predictor = strop.load(arguments.artifact)
    folder = cache_folder() / "by_hand" / arguments.case
    workplace = Workplace(case_named(arguments.case), arguments.batch, folder)
    opened = Opened(predict=lambda inputs: predictor.run(inputs))
    if arguments.judge:
        answers.write(json.dumps(asdict(judge(opened, workplace))) + "\n")
        return 0
    clock = Clock(opened, workplace)
    clock.warm_up()
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        match line.split():
            case ["time", count]:
                answers.write(json.dumps({"seconds": clock.time_calls(int(count))}) + "\n")
            case _:
                break
    return 0


if __name__ == "__main__":
    sys.exit(main())
