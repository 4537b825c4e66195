"""Which process does what: work that imports TensorFlow shares one, each other engine has its own for timing."""

from __future__ import annotations

from collections.abc import Mapping

from strop.core import registry
from strop.core.model import Form
from strop.core.parameters import Value

_TENSORFLOW = "tensorflow"
_TENSORFLOW_FORMS = frozenset({Form.KERAS, Form.SAVED_MODEL, Form.GRAPH_DEF})
LIGHT = "light"
CONVERTING = f"{_TENSORFLOW} threads=0"


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
