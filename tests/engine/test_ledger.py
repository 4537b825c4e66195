"""The ledger: every finished trial, whole, whatever became of the process."""

import subprocess
import sys

import pytest

from strop.core.errors import OutputError
from strop.core.evaluation import Evaluation, Fidelity, Measurement, OutputDifference
from strop.core.recipe import Recipe, Step
from strop.engine.ledger import Ledger, Trial

RECIPE = Recipe((Step("convert.litert", {"batch": 1}),), "litert", {"threads": 2})


def evaluated() -> Evaluation:
    drop = Measurement(0.01, "", 0.0, 0.02, 100)
    difference = OutputDifference("y", 0.5, 0.1, float("inf"), 0.0, None, True)
    return Evaluation(
        {"latency_p50@1": Measurement(1.5, "ms", 1.4, 1.6, 10)},
        Fidelity(drop, "accuracy", drop, drop, (difference,), 100, "select"),
    )


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


def test_a_trial_comes_back_as_it_was_from_another_process_time(tmp_path):
    first = Ledger(tmp_path)
    recorded = first.record(
        Trial("key", RECIPE, "done", "", evaluated(), {"left_in_float": {"conv": "odd"}}, 2.5)
    )
    first.close()

    second = Ledger(tmp_path)

    assert second.get("key") == recorded
    assert second.trials() == [recorded]
    second.close()


def test_trials_are_numbered_in_the_order_made_and_keep_their_number(ledger):
    for key in "abc":
        ledger.record(Trial(key, RECIPE, "failed", "refused"))

    again = ledger.record(Trial("a", RECIPE, "done"))

    assert again.number == 1
    assert [(t.key, t.number) for t in ledger.trials()] == [("a", 1), ("b", 2), ("c", 3)]
    assert ledger.get("a").state == "done"


def test_facts_are_remembered(ledger):
    ledger.remember("pairs", [{"name": "one"}])
    assert ledger.recall("pairs") == [{"name": "one"}]
    assert ledger.recall("nothing") is None


def test_a_second_process_is_refused_and_told_why(ledger, tmp_path):
    code = (
        "import sys; from pathlib import Path; from strop.engine.ledger import Ledger\n"
        "from strop.core.errors import OutputError\n"
        "try: Ledger(Path(sys.argv[1]))\n"
        "except OutputError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == (
        f"the study '{tmp_path}' is in use by another process.\n"
        "Wait until that one ends, or give this one a folder of its own.\n"
        "  strop optimize ... --output another-folder\n"
    )


def test_a_killed_process_leaves_what_it_recorded_and_no_lock(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from strop.engine.ledger import Ledger, Trial\n"
        "from strop.core.recipe import Recipe\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for i in range(5): ledger.record(Trial(str(i), Recipe((), 'litert'), 'done'))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)

    ledger = Ledger(tmp_path)

    assert [t.key for t in ledger.trials()] == ["0", "1", "2", "3", "4"]
    ledger.close()


def test_what_is_no_ledger_is_refused_and_left_alone(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(OutputError, match="is no ledger that can be read"):
        Ledger(tmp_path)
    assert (tmp_path / "ledger.sqlite").read_bytes() == b"no database at all" * 100
