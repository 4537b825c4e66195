"""`strop optimize` from the shell: for machines, and interrupted."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.models import dense_case

SOURCE = Path(__file__).parents[2] / "src"


def begun(folder, model, *options):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.Popen(
        [sys.executable, "-m", "strop", "optimize", model.name, "--data", f"{model.stem}.npz", "--effort", "quick",
         *options],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished_trials(folder):
    file = folder / "study" / "ledger.sqlite"
    if not file.exists():
        return 0
    with closing(sqlite3.connect(file)) as ledger:
        try:
            return ledger.execute("SELECT COUNT(*) FROM trials").fetchone()[0]
        except sqlite3.OperationalError:  # not made yet
            return 0


@pytest.mark.slow
def test_json_is_one_object_a_line_and_nothing_else(digits, tmp_path):
    model = digits.copied_to(tmp_path).model
    said, _ = begun(
        tmp_path, model, "--json", "--batch", "1,8", "--runtime", "litert"
    ).communicate(timeout=300)
    events = [json.loads(line) for line in said.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "StageStarted"
    assert kinds[-1] == "StudyFinished"
    assert events[-1]["best"] in {event.get("recipe") for event in events}
    assert events[-1]["gain"] >= 1
    assert kinds.count("TrialFinished") >= 5
    # Several batch sizes were asked for, so no conversion may fix one.
    header = (tmp_path / "digits-strop" / "trials.csv").read_text().splitlines()[0]
    assert "latency_p50@8 [ms]" in header
    assert "batch=" not in (tmp_path / "digits-strop" / "best.toml").read_text()


@pytest.mark.slow
def test_an_interrupt_ends_with_the_best_so_far_and_the_same_command_goes_on(tmp_path):
    model, folder = dense_case(tmp_path), tmp_path / "dense-strop"
    process = begun(tmp_path, model)
    deadline = time.monotonic() + 200
    while finished_trials(folder) < 4 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, wrong = process.communicate(timeout=200)

    assert process.returncode == 130, said + wrong
    assert "Traceback" not in said + wrong
    assert "interrupted" in said
    assert (folder / "report.html").exists()
    before = finished_trials(folder)

    again = begun(tmp_path, model)
    said, wrong = again.communicate(timeout=300)
    assert again.returncode == 0, said + wrong
    assert finished_trials(folder) >= before
