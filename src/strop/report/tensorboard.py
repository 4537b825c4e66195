"""A graph as a run of TensorBoard's, for its Graphs tab."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from strop.core.contracts import Requirement
from strop.core.errors import MissingDependencyError, ModelError, message
from strop.core.model import Form, Model

TENSORBOARD = Requirement("tensorboard", "tensorboard", "tensorboard")
_OURS = ".strop"  # ends the names of our event files
_MOST_BYTES = 2**31 - 1  # a protocol buffer holds no more


def refuse_without_tensorboard() -> None:
    """Refuse to go on where TensorBoard is not installed.

    Raises:
        MissingDependencyError: With the line that installs it.
    """
    if not TENSORBOARD.is_met():
        raise MissingDependencyError(
            "TensorBoard", TENSORBOARD.package, f"pip install strop[{TENSORBOARD.extra}]"
        )


def write_graph(model: Model, folder: str) -> int:
    """Write a TensorFlow model's graph as the run `folder`, in place of what was written there before.

    A frozen graph is shown as it is; any other model as freezing it would leave it.

    Args:
        model: A frozen graph, a SavedModel or a Keras model.
        folder: The run's folder; its name is the run's.

    Returns:
        How many nodes the graph has.

    Raises:
        ModelError: If it is too large.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    definition = _definition(model)
    content = definition.SerializeToString()
    if len(content) > _MOST_BYTES:
        raise ModelError(
            message(f"the graph of '{model.path}' is over 2 GB, more than an event file can hold.")
        )
    for earlier in Path(folder).glob(f"*{_OURS}"):
        earlier.unlink()
    writer = EventFileWriter(folder, filename_suffix=_OURS)
    writer.add_event(Event(graph_def=content, wall_time=time.time()))
    writer.close()
    return len(definition.node)


def _definition(model: Model) -> Any:
    from strop.graph.freezing import as_frozen
    from strop.graph.frozen import read_graph

    return read_graph(model.path) if model.form is Form.GRAPH_DEF else as_frozen(model).definition
