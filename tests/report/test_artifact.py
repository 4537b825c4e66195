"""An artifact's files: what they promise to other readers, and what is left where writing them fails."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import strop
from strop.core.errors import ExecutionError
from strop.core.evaluation import Fidelity
from strop.core.recipe import Recipe
from strop.engine.executors.local import LocalExecutor
from strop.report.artifact import read_certificate, write_artifact
from tests.models import onnx_dense
from tests.report.made import circumstances, outcome

AS_IT_IS = Recipe((), "onnxruntime")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact")
    return strop.apply(AS_IT_IS, onnx_dense(folder / "dense.onnx"), output=folder / "best")


def test_a_certificate_is_json_for_every_reader_and_reads_back_with_its_infinities(artifact):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    json.loads((artifact / "certificate.json").read_text(), parse_constant=refuse)

    found = Fidelity.from_json(read_certificate(artifact)["fidelity"])

    assert found.sqnr_db == np.inf  # the same file in the same engine


def written(folder, runtime="onnxruntime"):
    """Write an artifact of an outcome made by hand, whose model is a real file."""
    from dataclasses import replace

    from strop.graph.reading import read

    model = read(onnx_dense(folder / "dense.onnx"), folder)
    found = outcome()
    best = replace(found.best, recipe=Recipe((), runtime))
    with LocalExecutor() as executor:
        write_artifact(
            folder / "best", replace(found, best=best, model=model), circumstances(), executor
        )
    return folder / "best"


def test_the_originals_measurements_stand_where_they_are_looked_for(tmp_path):
    certificate = read_certificate(written(tmp_path))
    assert set(certificate["baseline"]["measurements"]) == {"latency_p50@1", "size"}
    assert certificate["baseline"]["measurements"]["latency_p50@1"]["value"] == 2.0


def test_a_failure_leaves_no_draft(tmp_path):
    with pytest.raises(ExecutionError):
        written(tmp_path, "litert")
    assert [path.name for path in tmp_path.iterdir()] == ["dense.onnx"]


def test_the_draft_of_a_killed_process_is_swept_and_that_of_a_living_one_stays(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for maker in (gone.pid, os.getppid()):
        (tmp_path / f".best-{maker}-draft").mkdir()

    written(tmp_path)

    drafts = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert drafts == [f".best-{os.getppid()}-draft"]
