"""The list that strop is measured against: it is whole, and an entry of it really runs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.by_hand.ways import WAYS
from benchmarks.cases import CASES, CaseUnavailableError, case_named

ROOT = Path(__file__).resolve().parents[2]


def _command(folder, *options):
    return [
        sys.executable,
        "-m",
        "benchmarks.by_hand",
        "--case=resnet8",
        "--entry=litert_float32",
        "--batch=1",
        f"--workdir={folder}",
        *options,
    ]


@pytest.fixture
def resnet8():
    try:
        case_named("resnet8").model()
        return case_named("resnet8").draw()
    except CaseUnavailableError as reason:
        pytest.skip(str(reason))


def test_every_entry_and_every_case_has_a_name_of_its_own():
    assert len({way.name for way in WAYS}) == len(WAYS) == 14
    assert len({case.name for case in CASES}) == len(CASES) == 10


def test_a_case_draws_the_same_samples_every_time(resnet8):
    again = case_named("resnet8").draw()

    np.testing.assert_array_equal(
        resnet8.calibrate.inputs["image"], again.calibrate.inputs["image"]
    )


@pytest.mark.slow
def test_an_entry_is_built_judged_and_timed(resnet8, tmp_path):
    out = tmp_path / "result.json"

    subprocess.run(
        _command(tmp_path / "work", "--seconds=0.1", f"--out={out}"), cwd=ROOT, check=True
    )

    result = json.loads(out.read_text())
    assert result["quality"]["accuracy"] == result["quality"]["reference_accuracy"] > 0.86
    assert result["timing"]["calls"] > 0
    assert set(result["costs"]) == {
        "litert_float32_batch1.tflite",
        "reference.npz",
        "saved_model_batch1",
    }


@pytest.mark.slow
def test_a_served_entry_times_calls_on_request(resnet8, tmp_path):
    done = subprocess.run(
        _command(tmp_path / "work", "--serve"),
        input="time 3\nquit\n",
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    ready, timed = map(json.loads, done.stdout.splitlines())
    assert ready["ready"]
    assert len(timed["seconds"]) == 3
