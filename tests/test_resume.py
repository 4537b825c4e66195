"""Killed at any moment, and the same command again: nothing finished is done twice, the ledger is whole."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.models import dense_case

SOURCE = Path(__file__).parents[1] / "src"
_LONGEST = 400


def command(folder, model, *runtimes):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.Popen(
        [sys.executable, "-m", "strop", "optimize", model.name, "--data", f"{model.stem}.npz", "--effort", "quick",
         "--output", "out", *(f"--runtime={runtime}" for runtime in runtimes)],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def trials(folder):
    """Return each finished trial's number and how long it took, to the last bit, by its key.

    A trial that is carried out again takes another time. When it was written is no sign: finalists are
    written again once their memory and cold start are known.
    """
    file = folder / "out" / "study" / "ledger.sqlite"
    if not file.exists():
        return {}
    with closing(sqlite3.connect(file)) as ledger:
        assert ledger.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        try:
            rows = ledger.execute("SELECT key, number, seconds FROM trials")
        except sqlite3.OperationalError:  # killed before the tables were made
            return {}
        return {key: row for key, *row in rows}


def killed_after_trials(folder, begin, count, patience):
    """Begin, and kill without warning a moment after the ledger holds `count` trials more."""
    process, begun = begin(), time.monotonic()
    wanted = len(trials(folder)) + count
    while process.poll() is None and time.monotonic() < begun + _LONGEST:
        if len(trials(folder)) >= wanted:
            break
        time.sleep(0.05)
    time.sleep(patience)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return trials(folder)


def hold(folder, kills, model, *runtimes):
    def begin():
        return command(folder, model, *runtimes)

    before = {}
    for count, patience in kills:
        after = killed_after_trials(folder, begin, count, patience)
        for key, row in before.items():
            assert after[key] == row, "a finished trial was carried out again"
        before = after
    process = begin()
    said, _ = process.communicate(timeout=_LONGEST)
    assert process.returncode == 0, said
    finished = trials(folder)
    for key, row in before.items():
        assert finished[key] == row, "a finished trial was carried out again"
    for name in ("best/certificate.json", "report.html", "report.md", "trials.csv"):
        assert (folder / "out" / name).exists()
    assert not list((folder / "out" / "study" / "store").glob("draft-*"))


@pytest.mark.slow
def test_two_kills_lose_nothing(tmp_path):
    hold(tmp_path, [(2, 0.2), (3, 0.05)], dense_case(tmp_path), "onnxruntime", "openvino")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_kills_at_random_moments_lose_nothing(digits, tmp_path, seed):
    draw = random.Random(seed)
    kills = [(draw.randrange(4), draw.uniform(0, 3)) for _ in range(5)]
    hold(tmp_path, kills, digits.copied_to(tmp_path).model, "litert", "onnxruntime")
