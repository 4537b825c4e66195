"""Which process does what, and what it starts with."""

import pytest

from strop.core import registry
from strop.engine.executors.local import LocalExecutor
from strop.engine.lanes import CONVERTING, TEACHING, of_applying

SWITCH = "TF_ENABLE_ONEDNN_OPTS"


def test_what_trains_has_a_process_of_its_own():
    lanes = {kind.name: of_applying(kind) for kind in registry.passes}
    assert lanes["prune.magnitude"] == lanes["distill.student"] == TEACHING
    assert lanes["convert.litert"] == CONVERTING
    assert lanes["quantize.onnx_static"] not in {TEACHING, CONVERTING}


@pytest.mark.parametrize(("given", "teaching"), [(None, "1"), ("0", "0")])
def test_training_has_onednn_unless_the_user_says_otherwise_and_nothing_else_is_changed(
    monkeypatch, given, teaching
):
    if given is None:
        monkeypatch.delenv(SWITCH, raising=False)
    else:
        monkeypatch.setenv(SWITCH, given)
    with LocalExecutor() as executor:
        assert executor.call(TEACHING, "os:getenv", SWITCH) == teaching
        assert executor.call(CONVERTING, "os:getenv", SWITCH) == given
