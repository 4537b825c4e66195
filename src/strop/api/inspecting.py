"""`inspect`: what a model is, and who can run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from strop.api.working import workplace
from strop.core.contracts import Effort
from strop.core.errors import UnknownNameError, WorkerDiedError
from strop.core.model import Model
from strop.engine.lanes import CONVERTING, of_reading
from strop.graph.describing import Description
from strop.graph.supported_ops import TARGETS, Unsupported
from strop.search.preparing import (
    read_source,
    unreadable,
)
from strop.search.request import Request
from strop.search.space import Space


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        model: The model as it was read.
        description: Operations, parameters, multiply-accumulates.
        engines: For each runtime by its title, the conversions that lead to it, or why none does.
        unsupported: The nodes that the engine asked for can't run; None where none was asked for.
    """

    model: Model
    description: Description
    engines: dict[str, str]
    unsupported: tuple[Unsupported, ...] | None = None


def inspect(
    model: Any, *, runtime: str | None = None, request: Request | None = None
) -> Inspection:
    """Return what a model is and how each engine can be reached from it.

    Args:
        model: As for `optimize`.
        runtime: An engine to ask, node by node, what it can't run: ``litert``, ``litert_select`` (with TensorFlow's
            kernels), ``onnxruntime``, ``openvino``, ``xla``; of TensorFlow's own models. None asks none.
        request: What is said about the source; see `Request`.

    Raises:
        ModelError: If it can't be read.
        UnknownNameError: If there is no such engine.
        ParameterError: If the model is none of TensorFlow's.
        MissingDependencyError: If the engine is not installed.
        TrialError: If the engine's converter gives no answer.
    """
    if runtime is not None and runtime not in TARGETS:
        raise UnknownNameError("engine", runtime, TARGETS)
    asked = request or Request()
    with workplace() as (scratch, executor):
        source, _ = read_source(model, asked, scratch, executor)
        try:
            description = executor.call(
                of_reading(source.form),
                "strop.graph.describing:describe",
                source,
                timeout_seconds=asked.step_seconds,
            )
        except WorkerDiedError as error:
            raise unreadable(source.path, error) from None
        unsupported = None
        if runtime is not None:
            unsupported = executor.call(
                CONVERTING, "strop.graph.supported_ops:unsupported", source, runtime,
                timeout_seconds=asked.step_seconds,
            )  # fmt: skip
    space = Space(source.form, Effort.QUICK, {"cores": 1, "batch": asked.goal.batch})
    nodes = None if unsupported is None else tuple(unsupported)
    return Inspection(source, description, space.reach(), nodes)
