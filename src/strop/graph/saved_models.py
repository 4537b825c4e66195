"""SavedModel folders: their serving function by the signature's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from strop.core.model import Model


def serving_function(model: Model) -> Callable[..., list[Any]]:
    """Return the SavedModel's serving function, tensors in and out in the signature's order."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(model.path))
    serve = loaded.signatures[model.facts.get("served", "serving_default")]
    inputs = [bound.name for bound in model.binding.inputs]
    outputs = [bound.name for bound in model.binding.outputs]

    def function(*tensors: Any) -> list[Any]:
        results = serve(**dict(zip(inputs, tensors, strict=True)))
        return [results[name] for name in outputs]

    function.loaded = loaded  # type: ignore[attr-defined]  # its variables go when it goes
    return function
