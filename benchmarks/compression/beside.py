"""strop beside tfmot: accuracy at each sparsity, and how long an epoch takes, both without a teacher."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from benchmarks.compression.originals import RESNET8
from benchmarks.compression.scale import BESIDE_EPOCHS, Scale
from benchmarks.peers import environments
from benchmarks.peers.lesson import Lesson

SPARSITIES = (0.5, 0.7, 0.8)
TOOLS = ("strop", "tfmot")
TECHNIQUES = ("plain", "prune", "cluster")
# The first epoch of each is not counted: it compiles.
_ROUNDS, _LEAST_ROUNDS = 10, 2
_IMAGES = 5_000  # of an epoch that is timed
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Beside:
    """ResNet-8 pruned to one sparsity by both tools, by the same samples, schedule, rate and epochs.

    Attributes:
        sparsity: The share of weights to drop.
        is_timed: Whether its figures are times.
    """

    sparsity: float
    is_timed: bool = False

    @property
    def name(self) -> str:
        """Of files, and on the command line."""
        return f"beside-{self.sparsity:.0%}".removesuffix("%")

    def measured(self, seed: int, scale: Scale) -> dict[str, Any]:
        """Return what each tool's network answers, its share of zeros, and the seconds of its epochs."""
        epochs = scale.epochs(BESIDE_EPOCHS)
        lesson = replace(
            _lesson(scale), technique="prune", sparsity=self.sparsity, epochs=epochs, seed=seed
        )
        return {tool: _carried_out(tool, lesson) for tool in TOOLS}


@dataclass(frozen=True)
class Pace:
    """The seconds of an epoch: of plain `fit`, of pruning, and of clustering, by both tools.

    All six trainings run at once, and all but one of them wait: they take turns, an epoch each, in an order that is
    drawn anew each round, so that what slows the machine slows all.
    """

    name: str = "pace"
    is_timed: bool = True

    def measured(self, seed: int, scale: Scale) -> dict[str, Any]:
        """Return the seconds of each epoch by tool and technique, the first epoch left out."""
        rounds = max(scale.epochs(_ROUNDS), _LEAST_ROUNDS) + 1
        lesson = replace(
            _lesson(scale), sparsity=0.7, epochs=rounds, seed=seed, is_paced=True, images=_IMAGES
        )
        started = monotonic()
        with ExitStack() as stack:
            runs = {
                f"{tool} {technique}": stack.enter_context(
                    _Run(tool, replace(lesson, technique=technique))
                )
                for tool in TOOLS
                for technique in TECHNIQUES
            }
            seconds = _in_turn(runs, rounds, np.random.default_rng(seed))
        return {"epochs": seconds, "seconds": monotonic() - started}


def _in_turn(
    runs: "dict[str, _Run]", rounds: int, random: np.random.Generator
) -> dict[str, list[float]]:
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for run in runs.values():  # all are ready before anything is timed
        run.wait()
    for number in range(rounds):
        for place in random.permutation(len(names)):
            took = runs[names[place]].epoch(is_last=number == rounds - 1)
            if number:
                seconds[names[place]].append(took)
        print(f"\rround {number} of {rounds - 1}    ", end="", flush=True)
    return seconds


class _Run:
    """A training in a process of its own that goes on by an epoch when it is told to."""

    def __init__(self, tool: str, lesson: Lesson) -> None:
        self._tool = tool
        command = _command(tool, lesson)
        self._process = subprocess.Popen(
            command, cwd=_ROOT, env=_environment(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait(self) -> None:
        """Return once it waits for its next epoch."""
        self._read("waits")

    def epoch(self, *, is_last: bool) -> float:
        """Have it go through an epoch; return the seconds it took."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        took = float(self._read("took"))
        if not is_last:
            self.wait()
        return took

    def _read(self, key: str) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line) if line.startswith("{") else {}
            if key in told:
                return told[key]
        raise RuntimeError(f"{self._tool} ended with exit code {self._process.wait()}")


def _lesson(scale: Scale) -> Lesson:
    samples = scale.work() / "lessons" / f"beside-{RESNET8.name}.npz"
    if not samples.exists():
        drawn = RESNET8.draw()
        most = {"train": scale.lessons, "test": scale.tests}
        samples.parent.mkdir(parents=True, exist_ok=True)
        draft = samples.with_name(f"draft-{samples.name}")
        np.savez(draft, **{name: array[: most[name[2:]]] for name, array in drawn.items()})
        draft.replace(samples)
    return Lesson(str(RESNET8.model(scale)), str(samples), "plain", epochs=1)


def _carried_out(tool: str, lesson: Lesson) -> dict[str, Any]:
    done = subprocess.run(
        _command(tool, lesson), cwd=_ROOT, env=_environment(), text=True, capture_output=True, check=False
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{tool}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _command(tool: str, lesson: Lesson) -> Sequence[str]:
    python = sys.executable if tool == "strop" else str(environments.tfmot())
    return [python, "-m", f"benchmarks.peers.with_{tool}", lesson.to_argument()]


def _environment() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
