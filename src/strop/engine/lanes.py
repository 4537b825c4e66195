"""Which process does what: work that imports TensorFlow shares one, each other engine has its own for timing."""

from __future__ import annotations

import os
from collections.abc import Mapping

from strop.core import registry
from strop.core.contracts import Needs, Pass
from strop.core.model import Form
from strop.core.parameters import Value

_TENSORFLOW = "tensorflow"
_TENSORFLOW_FORMS = frozenset({Form.KERAS, Form.SAVED_MODEL, Form.GRAPH_DEF})
LIGHT = "light"
CONVERTING = f"{_TENSORFLOW} threads=0"
TEACHING = f"{_TENSORFLOW} teaching"
_ONEDNN = "TF_ENABLE_ONEDNN_OPTS"


def of_applying(kind: type[Pass]) -> str:
    """Return the lane that a pass is carried out in."""
    if not kind.loads_tensorflow:
        return LIGHT
    return TEACHING if kind.needs is Needs.TRAINING else CONVERTING


def environment_of(lane: str) -> dict[str, str]:
    """Return the variables that a lane's process starts with beside those of all.

    By itself TensorFlow uses oneDNN only where a processor has AVX-512. Without, training takes twice as long, so that
    it is taught with it; models are run as users run them.
    """
    return {_ONEDNN: os.environ.get(_ONEDNN, "1")} if lane == TEACHING else {}


def of_reading(form: Form) -> str:
    """Return the lane that a source of `form`, and the samples for it, are read in."""
    return CONVERTING if form in _TENSORFLOW_FORMS else LIGHT


def of_running(runtime: str, settings: Mapping[str, Value]) -> str:
    """Return the lane that models are run in by `runtime`: one an engine, since engines' threads fight within a process."""
    if registry.runtimes.get(runtime).loads_tensorflow:
        # TensorFlow's threads are a setting of the whole process.
        return f"{_TENSORFLOW} threads={settings.get('threads', 0)}"
    return runtime


def starts_slowly(lane: str) -> bool:
    """Say whether a lane's process takes some ten seconds to start, which importing TensorFlow does."""
    return lane.startswith(_TENSORFLOW)
