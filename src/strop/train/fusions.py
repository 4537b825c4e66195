"""Which calls of a model an integer engine makes one kernel of, and which kernels read what the model is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from strop.graph.keras_calls import Call, Calls
from strop.graph.keras_layers import Chain
from strop.train.integer_forms import (
    LINEAR,
    NORMALIZATION,
    SEPARABLE,
    activation_of,
    function_name,
    untreatable,
)
from strop.train.kernels import has_kernel

Excluded = Callable[[Chain], str | None]
"""Says why a layer is to stay in float, if it is."""


def first_kernels(calls: Calls) -> frozenset[int]:
    """Return the ids of the layers with kernels that read what no kernel, of whatever layer, has had a part in."""
    untouched, found = set(calls.inputs), set()
    for call in calls.calls:
        if not untouched.issuperset(call.tensors):
            continue
        if call.kinds & (LINEAR | SEPARABLE):
            found.add(id(call.operation))
        elif not has_kernel(call.operation):
            untouched.update(call.results)
    return frozenset(found)


def foldings(calls: Sequence[Call], excluded: Excluded) -> dict[int, Any]:
    """Return the batch normalization that a layer has behind it wherever it stands, by the id of the layer."""
    behind: dict[int, list[Any]] = {}
    for call in calls:
        if call.kinds & (LINEAR | SEPARABLE):
            done = _normalization_behind(call, excluded)
            behind.setdefault(id(call.operation), []).append(done)
    found = {}
    for layer, normalizations in behind.items():
        done = normalizations[0]
        often = sum(call.operation is done for call in calls)
        if (
            done
            and all(other is done for other in normalizations)
            and often == len(normalizations)
        ):
            found[layer] = done
    return found


def _normalization_behind(call: Call, excluded: Excluded) -> Any:
    """Return the batch normalization that alone reads what a layer gives, over its channels; None for none."""
    layer, (result,) = call.operation, call.results
    reader = result.sole_reader
    if reader is None or reader.computes_as != NORMALIZATION or len(reader.tensors) != 1:
        return None
    if excluded(call.chain) or excluded(reader.chain) or untreatable(layer):
        return None
    if getattr(layer, "activity_regularizer", None):
        return None  # it is of what is not normalized yet
    done = reader.operation
    is_first = getattr(layer, "data_format", "") == "channels_first"
    channels = 1 if is_first else len(result.shape) - 1
    is_plain = function_name(activation_of(layer)) == "linear" and not done.renorm
    return done if is_plain and done.axis % len(result.shape) == channels else None


def is_separable(layer: Any) -> bool:
    """Say whether a layer is a separable convolution."""
    return any(kind.__name__ in SEPARABLE for kind in type(layer).__mro__)
