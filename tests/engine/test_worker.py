"""Workers: what a converter does to its process costs one step and nothing more."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from strop.core.errors import (
    Cancelled,
    ExecutionError,
    QuantizationError,
    StepTimeoutError,
    UnknownNameError,
    WorkerDiedError,
)
from strop.core.model import Form
from strop.engine.executors.local import LocalExecutor
from strop.engine.lanes import CONVERTING, of_reading, of_running
from strop.engine.worker import Worker

HERE = str(Path(__file__).parent)


@pytest.fixture
def worker():
    worker = Worker(search_path=(HERE,))
    yield worker
    with contextlib.suppress(OSError):
        worker.close()


def test_results_come_back(worker):
    assert worker.call("misbehaving:twice", 21) == 42


def test_an_abort_is_told_with_the_signal_and_the_last_words(worker):
    with pytest.raises(WorkerDiedError) as caught:
        worker.call("misbehaving:abort")
    assert str(caught.value) == (
        "the process that carried out the step was ended by SIGABRT\nCheck failed: rank == 4"
    )


def test_an_exit_is_told_with_its_status(worker):
    with pytest.raises(WorkerDiedError, match="ended by itself with status 7"):
        worker.call("misbehaving:leave")


def test_a_hang_is_ended_at_the_limit(worker):
    begun = time.monotonic()

    with pytest.raises(StepTimeoutError, match="ran past its limit of 1 s and was ended"):
        worker.call("misbehaving:hang", timeout_seconds=1)

    assert time.monotonic() - begun < 30
    assert not worker.is_alive()


def test_outgrowing_the_memory_limit_ends_the_worker():
    worker = Worker(search_path=(HERE,), memory_bytes=200 * 2**20)
    with pytest.raises(WorkerDiedError, match=r"outgrew its limit of 0\.2 GiB"):
        worker.call("misbehaving:devour", timeout_seconds=60)
    assert not worker.is_alive()


def test_an_error_of_ours_crosses_with_its_class_and_the_worker_lives_on(worker):
    with pytest.raises(QuantizationError, match=r"no scale for 'conv'"):
        worker.call("misbehaving:refuse")
    assert worker.call("misbehaving:twice", 1) == 2


def test_an_error_of_ours_crosses_with_its_facts(worker):
    with pytest.raises(UnknownNameError) as caught:
        worker.call("misbehaving:not_known")
    assert caught.value.name == "prune.chanels"
    assert caught.value.known == ("prune.channels",)


def test_a_librarys_error_becomes_an_execution_error_of_one_line(worker):
    with pytest.raises(ExecutionError) as caught:
        worker.call("misbehaving:library_fails")
    assert str(caught.value) == "ZeroDivisionError: a library's own"


def test_running_out_of_memory_is_told(worker):
    with pytest.raises(WorkerDiedError, match="ran out of memory"):
        worker.call("misbehaving:run_out")


def test_a_task_that_does_not_exist_is_an_error_and_not_a_hang(worker):
    with pytest.raises(ExecutionError, match="AttributeError"):
        worker.call("misbehaving:nothing_of_the_kind", timeout_seconds=30)


def test_progress_is_told_in_order(worker):
    told = []
    worker.call("misbehaving:told", progress=lambda *news: told.append(news))
    assert [news for news in told if news[0] >= 0] == [(0.25, "a quarter"), (1.0, "all")]


def test_cancelling_ends_the_worker(worker):
    def refuse(fraction, note):
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        worker.call("misbehaving:hang", progress=refuse, timeout_seconds=60)
    assert not worker.is_alive()


def test_nothing_a_worker_prints_reaches_the_terminal(worker, capfd):
    assert worker.call("misbehaving:speak") == "said"
    assert capfd.readouterr() == ("", "")


def test_a_worker_ends_when_the_process_that_started_it_is_killed():
    code = (
        "from strop.engine.worker import Worker\n"
        f"worker = Worker(search_path=({HERE!r},))\n"
        "print(worker.process_id, flush=True)\n"
        "worker.call('misbehaving:hang')\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = psutil.Process(int(parent.stdout.readline()))

    parent.send_signal(signal.SIGKILL)
    parent.communicate()

    with contextlib.suppress(psutil.NoSuchProcess):
        worker.wait(timeout=20)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_after_a_death_the_lane_has_a_new_process():
    with LocalExecutor((HERE,)) as executor:
        first = executor.call("lane", "misbehaving:process_id")
        with pytest.raises(WorkerDiedError):
            executor.call("lane", "misbehaving:abort")
        second = executor.call("lane", "misbehaving:process_id")
    assert first != second


def test_a_lane_keeps_its_process_and_lanes_do_not_share():
    with LocalExecutor((HERE,)) as executor:
        ids = [executor.call(lane, "misbehaving:process_id") for lane in ("a", "b", "a")]
    assert ids[0] == ids[2] != ids[1]
    assert os.getpid() not in ids


def test_what_starts_slowly_outlives_what_starts_in_a_moment():
    slow = of_running("tensorflow", {})
    with LocalExecutor((HERE,)) as executor:
        first = executor.call(slow, "misbehaving:process_id")
        others = [executor.call(f"lane{n}", "misbehaving:process_id") for n in range(9)]
        assert executor.call(slow, "misbehaving:process_id") == first
    assert len(set(others)) == 9


def test_where_memory_is_short_lanes_make_room(monkeypatch):
    with LocalExecutor((HERE,)) as executor:
        first = executor.call("one", "misbehaving:process_id")
        short = psutil.virtual_memory()._replace(available=0)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: short)
        executor.call("two", "misbehaving:process_id")
        assert not psutil.pid_exists(first)


def test_all_that_imports_tensorflow_shares_a_process_but_for_its_threads():
    shared = {
        of_reading(Form.KERAS),
        CONVERTING,
        of_running("keras_predict", {}),
        *(of_running("tensorflow", {"jit": jit}) for jit in ("off", "xla", "auto")),
    }
    assert len(shared) == 1
    assert of_running("tensorflow", {"threads": 1}) not in shared
    assert of_running("litert", {"threads": 1}) == of_running("litert", {}) not in shared


def test_without_a_limit_that_is_given_most_of_the_free_memory_is_one(monkeypatch):
    """What eats all memory must cost its trial and not the machine; here hardly any is free."""
    free = psutil.virtual_memory()._replace(available=250 * 2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with (
        LocalExecutor((HERE,)) as executor,
        pytest.raises(WorkerDiedError, match=r"outgrew its limit of 0\.2 GiB"),
    ):
        executor.call("lane", "misbehaving:devour", timeout_seconds=60)


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """An empty folder for temporary files, and the processes that were there before."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def children():
    return [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]


def test_a_process_that_ends_at_its_start_leaves_nothing(scratch, tmp_path_factory):
    bad = tmp_path_factory.mktemp("bad")
    (bad / "sitecustomize.py").write_text("import os; os._exit(1)")
    before = children()
    with pytest.raises(WorkerDiedError, match="ended by itself with status 1"):
        Worker(search_path=(str(bad),))
    assert list(scratch.iterdir()) == []
    assert children() == before


def test_a_process_that_never_answers_is_ended_and_leaves_nothing(
    scratch, tmp_path_factory, monkeypatch
):
    slow = tmp_path_factory.mktemp("slow")
    (slow / "sitecustomize.py").write_text("import time; time.sleep(600)")
    monkeypatch.setattr("strop.engine.worker._START_SECONDS", 1.0)
    before = children()
    with pytest.raises(WorkerDiedError, match="did not start"):
        Worker(search_path=(str(slow),))
    assert children() == before
    assert list(scratch.iterdir()) == []


def test_a_killed_process_leaves_no_log_of_its_workers(scratch):
    code = (
        "import os\nfrom strop.engine.worker import Worker\n"
        "worker = Worker()\nos.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert list(scratch.iterdir()) == []


def test_a_closed_executor_leaves_no_process():
    with LocalExecutor((HERE,)) as executor:
        made = executor.call("lane", "misbehaving:process_id")
    assert not psutil.pid_exists(made)
