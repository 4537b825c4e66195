"""`tensorboard`: models' graphs as runs that TensorBoard shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from strop.api.opening import name_of
from strop.api.working import workplace
from strop.core.errors import ModelError, message
from strop.core.model import Form
from strop.engine.lanes import CONVERTING
from strop.graph.names import unique
from strop.report.folder import made_folder
from strop.report.tensorboard import refuse_without_tensorboard
from strop.search.preparing import read_source
from strop.search.request import Request

_SHOWN = (Form.GRAPH_DEF, Form.KERAS, Form.SAVED_MODEL)


def tensorboard(
    models: Sequence[Any], logdir: str | Path, *, request: Request | None = None
) -> dict[str, int]:
    """Write each model's graph as a run beneath `logdir`, for TensorBoard's Graphs tab.

    Args:
        models: Frozen graphs, SavedModels or Keras models, as for `optimize`.
        logdir: The folder that TensorBoard is to show; other runs in it stay.
        request: What else is said about the models; see `Request`.

    Returns:
        How many nodes each run's graph has, by the run's name.

    Raises:
        MissingDependencyError: If TensorBoard is not installed.
        ModelError: If a model is none of TensorFlow's.
        OutputError: If the folder can't be written.
    """
    refuse_without_tensorboard()
    asked, folder = request or Request(), made_folder(Path(logdir))
    names = unique([Path(name_of(model)).stem for model in models])
    found = {}
    with workplace() as (scratch, executor):
        for name, model in zip(names, models, strict=True):
            source, _ = read_source(model, asked, scratch / name, executor)
            if source.form not in _SHOWN:
                raise ModelError(
                    message(
                        f"'{name_of(model)}' is of the form {source.form}.",
                        "TensorBoard shows TensorFlow's own: a frozen .pb, a SavedModel, or a Keras model.",
                    )
                )
            found[name] = executor.call(
                CONVERTING, "strop.report.tensorboard:write_graph", source, str(folder / name),
                timeout_seconds=asked.step_seconds,
            )  # fmt: skip
    return found
