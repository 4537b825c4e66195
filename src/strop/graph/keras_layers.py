"""What is within a live Keras layer: the layers of a model, what a wrapper is around, cells of recurrent layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Chain = tuple[Any, ...]
"""The models and layers around a layer, from the outermost, and the layer."""


def layers_of(layer: Any) -> list[Any]:
    """Return a layer or a model, built or not, and all layers within it, each once; those around others first."""
    found = {id(layer): layer}
    for *_, inner in chains_within(layer):
        found.setdefault(id(inner), inner)
    return list(found.values())


def chains_within(layer: Any, around: Chain = ()) -> Iterator[Chain]:
    """Yield all layers within a layer, with those around each in it; one that stands in two places twice."""
    # Keras has a public `layers` for models alone: not for wrappers, attention and recurrent layers. Nobody else is to
    # touch this one.
    for inner in layer._layers:
        if inner not in around:
            chain = (*around, inner)
            yield chain
            yield from chains_within(inner, chain)


def plain_layers(model: Any) -> Iterator[Any]:
    """Yield the layers of a model and of models within it, each once, and not what is within them."""
    import keras  # who asks for the others may not want to wait for it

    seen: set[int] = set()
    waiting = [model]
    while waiting:
        layer = waiting.pop(0)
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if isinstance(layer, keras.Model):
            waiting = [*layer.layers, *waiting]
        else:
            yield layer


def name_of(chain: Chain) -> str:
    """Return a layer's name after those around it."""
    return "/".join(layer.name for layer in chain)


def prefixes(chain: Chain) -> list[Chain]:
    """Return the layers around one, the outermost first, and it, each with what is around it."""
    return [chain[:length] for length in range(1, len(chain) + 1)]
