"""Layers that are to be quantized, and models that are taught to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from strop.compat.tfmot.copies import copied, refuse_subclassed, remade, uncompiled
from strop.compat.tfmot.marked import warn_of_left_alone
from strop.compat.tfmot.marks import custom_objects
from strop.compat.tfmot.quantization.configured import QuantizeConfig, QuantizeWrapper
from strop.compat.tfmot.quantization.schemes import QuantizeScheme
from strop.core.errors import message
from strop.graph.keras_calls import nodes_of
from strop.graph.keras_layers import layers_of
from strop.train.quantization import Quantization, quantization_aware
from strop.train.quantized_layer import QuantizedLayer
from strop.train.ranges import FakeQuantize

_ATTRIBUTE = "strop_annotation"
_AT_FIRST = 6.0  # how far ranges reach before a batch was seen


@dataclass(frozen=True)
class Annotation:
    """That a layer is to be quantized.

    Attributes:
        config: How; None for the default.
    """

    config: QuantizeConfig | None = None


def annotate(layer: Any, annotation: Annotation) -> None:
    """Annotate a layer that is not annotated yet."""
    if annotation_of(layer) is None:
        setattr(layer, _ATTRIBUTE, annotation)


def annotation_of(layer: Any) -> Annotation | None:
    """Return what a layer is annotated with."""
    found: Annotation | None = getattr(layer, _ATTRIBUTE, None)
    return found


def copied_with_annotations(model: Any) -> Any:
    """Return a copy of a model whose layers are annotated as they were."""

    def layer_for(layer: Any) -> Any:
        made = remade(layer)
        if (annotation := annotation_of(layer)) is not None:
            annotate(made, annotation)
        return made

    return copied(model, layer_for)


def placed_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the layers of a model, and of models within it, after the names of those around them."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from ((f"{layer.name}/{name}", inner) for name, inner in placed_layers(layer))
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer.name, layer


def taught_to_be_quantized(
    model: Any, scheme: QuantizeScheme, annotations: Mapping[str, Annotation], prefix: str
) -> Any:
    """Return a model to be trained that rounds as the integer model made of it will.

    Args:
        model: A Functional or Sequential model; it is not changed.
        scheme: What becomes of the weights.
        annotations: The layers to be quantized, by `placed_layers`.
        prefix: Of the names of layers whose weights are rounded.

    Raises:
        ValueError: If the model is of a class of its own, or not built.
        ModelError: If it can't be copied.
    """
    refuse_subclassed(model)
    if not model.built:
        raise ValueError(
            message(
                f"the model '{model.name}' is not built.",
                "Begin it with a keras.Input, or call it once.",
                next_step="model(x[:1])",
            )
        )
    configured = {name for name, one in annotations.items() if one.config is not None}
    given = _with_configs(model, annotations, configured) if configured else model
    left = tuple(
        name for name, _ in placed_layers(model) if name not in annotations or name in configured
    )
    scope = {**custom_objects(model), **_classes(given)}
    with uncompiled(given), keras.saving.custom_object_scope(scope):
        aware = quantization_aware(given, Quantization(exclude=left))
    warn_of_left_alone(
        {name: why for name, why in aware.left_in_float.items() if name not in left}, "quantized"
    )
    _begin(aware.model, prefix)
    scheme.apply(aware.model)
    return aware.model


def _begin(model: Any, prefix: str) -> None:
    """Give ranges and names to what rounds in a model."""
    for layer in layers_of(model):
        if isinstance(layer, FakeQuantize) and layer.fixed is None:
            # Until a batch was seen: a model that was not taught is of some use like that, and of none without.
            layer.minimum.assign(-_AT_FIRST)
            layer.maximum.assign(_AT_FIRST)
        elif isinstance(layer, QuantizedLayer | QuantizeWrapper):
            # One that gives an output has left its name to what rounds that.
            layer.name = f"{prefix}{layer.name.removesuffix('_unrounded')}"
            if isinstance(layer, QuantizeWrapper):
                layer.begin()


def _with_configs(model: Any, annotations: Mapping[str, Annotation], configured: set[str]) -> Any:
    """Return a copy of a model in which layers with configs of their own are rounded as these say."""
    copy = copied(model)
    configs = {
        id(layer): annotations[name].config
        for name, layer in placed_layers(copy)
        if name in configured
    }
    first = {id(reader) for reader in _readers_of_inputs(copy)}

    def layer_for(layer: Any) -> Any:
        config = configs.get(id(layer))
        if config is None:
            return layer
        return QuantizeWrapper(layer, config, rounds_input=id(layer) in first, name=layer.name)

    return keras.models.clone_model(copy, clone_function=layer_for, recursive=True)


def _readers_of_inputs(model: Any) -> Iterator[Any]:
    functional = getattr(model, "_functional", None) or model
    inputs = {id(tensor) for tensor in functional.inputs}
    for node in nodes_of(functional):
        if any(id(tensor) in inputs for tensor in node.input_tensors):
            yield node.operation


def _classes(model: Any) -> dict[str, Any]:
    """Return the classes of people's own that wrapped layers and their configs are of."""
    wrappers = [layer for layer in layers_of(model) if isinstance(layer, QuantizeWrapper)]
    named = [type(part) for one in wrappers for part in (one.layer, one.quantize_config)]
    return {kind.__name__: kind for kind in named if not kind.__module__.startswith("keras.")}
