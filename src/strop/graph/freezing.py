"""Any TensorFlow model as a frozen graph, whatever form it comes in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from strop.core.model import Form, Model
from strop.graph.frozen import FrozenGraph, freeze, frozen_of


def as_frozen(model: Model, *, batch: int | None = None, unrolled: bool = False) -> FrozenGraph:
    """Return the frozen graph of a frozen graph, a SavedModel or a Keras model.

    Args:
        model: The model.
        batch: A batch size to fix; None leaves it as it is.
        unrolled: Whether recurrent Keras layers are written out step by step.
    """
    if model.form is Form.GRAPH_DEF:
        return frozen_of(model, batch=batch)
    return freeze(_function(model, unrolled=unrolled), model.signature, batch=batch)


def _function(model: Model, *, unrolled: bool) -> Callable[..., Sequence[Any]]:
    if model.form is Form.SAVED_MODEL:
        from strop.graph.saved_models import serving_function

        return serving_function(model)
    from strop.graph.keras_files import opened
    from strop.graph.keras_models import by_name
    from strop.graph.recurrent import unroll

    loaded = opened(model)
    if unrolled:
        unroll(loaded)
    return lambda *tensors: by_name(loaded, tensors, model.signature)
