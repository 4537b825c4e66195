"""Auto-clustering really clusters: XLA writes down what it compiles, and gives clusters names of their own."""

import os
import subprocess
import sys

import pytest

from strop.core.model import Form
from strop.engine.measure import process_costs
from strop.engine.worker import Worker


def clusters(folder):
    return [file.name for file in folder.glob("*cluster_*")]


@pytest.mark.parametrize(("jit", "wanted"), [("auto", True), ("off", False)])
@pytest.mark.slow
def test_a_worker_clusters_where_it_is_asked_to(made, tmp_path, jit, wanted):
    worker = Worker({"XLA_FLAGS": f"--xla_dump_to={tmp_path}", "TF_CPP_MIN_LOG_LEVEL": "3"})
    try:
        worker.call(
            "strop.engine.tasks:open_subject",
            "one", made.of_form(Form.GRAPH_DEF), "tensorflow", {"jit": jit}, made.bench, 1,
        )  # fmt: skip
        worker.call("strop.engine.tasks:time_round", "one", 0.2)
    finally:
        worker.close()

    assert bool(clusters(tmp_path)) is wanted


@pytest.mark.slow
def test_one_process_clusters_only_while_it_is_asked_to(made, tmp_path):
    """A study's TensorFlow settings share a process, which pays ten seconds to start."""
    worker = Worker({"XLA_FLAGS": f"--xla_dump_to={tmp_path}", "TF_CPP_MIN_LOG_LEVEL": "3"})
    counts = []
    try:
        for jit in ("off", "auto", "off"):
            worker.call(
                "strop.engine.tasks:evaluate",
                made.of_form(Form.GRAPH_DEF), "tensorflow", {"jit": jit}, made.bench,
                judged=0, judging_seconds=0.0, seconds=0.05, batch_sizes=(1,),
            )  # fmt: skip
            counts.append(len(clusters(tmp_path)))
    finally:
        worker.close()

    assert counts[0] == 0 < counts[1] == counts[2]


@pytest.mark.slow
def test_a_cold_start_clusters_too(made, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to={tmp_path}")

    process_costs(made.of_form(Form.GRAPH_DEF), "tensorflow", {"jit": "auto"}, repeats=1)

    assert clusters(tmp_path)


def test_flags_of_the_users_own_are_kept(monkeypatch):
    from strop.engine.worker import process_environment

    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_min_cluster_size=2")

    wanted = "--tf_xla_min_cluster_size=2 --tf_xla_cpu_global_jit"
    assert process_environment()["TF_XLA_FLAGS"] == wanted
    monkeypatch.setenv("TF_XLA_FLAGS", wanted)
    assert process_environment()["TF_XLA_FLAGS"] == wanted


@pytest.mark.parametrize(
    ("first", "warns"), [("", False), ("import tensorflow", True)], ids=["before", "after"]
)
@pytest.mark.slow
def test_outside_of_a_worker_it_sets_the_flag_and_says_where_that_may_be_too_late(
    made, tmp_path, first, warns
):
    import json

    file = tmp_path / "model.json"
    file.write_text(json.dumps(made.of_form(Form.GRAPH_DEF).to_json()))
    code = (
        f"import json, os, warnings\n{first}\n"
        "from strop.core import registry; from strop.core.model import Model\n"
        f"model = Model.from_json(json.load(open({str(file)!r})))\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    registry.runtimes.get('tensorflow')(jit='auto').open(model)\n"
        "print(os.environ['TF_XLA_FLAGS'])\n"
        "print([str(w.message) for w in caught if 'jit=' in str(w.message)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True,
        env={k: v for k, v in os.environ.items() if k != "TF_XLA_FLAGS"},
    )  # fmt: skip

    flags, said = done.stdout.strip().splitlines()
    assert flags == "--tf_xla_cpu_global_jit"
    assert said == (
        "[\"TensorFlow was imported before: jit='auto' may do nothing in this process. Start it with "
        'TF_XLA_FLAGS=--tf_xla_cpu_global_jit, or open the model before TensorFlow runs anything."]'
        if warns
        else "[]"
    )
