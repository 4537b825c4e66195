"""Quantization-aware training for Keras models, under the names of `tfmot.quantization.keras`."""

from __future__ import annotations

from typing import Any

import keras

from strop.compat.tfmot.copies import refuse_subclassed
from strop.compat.tfmot.quantization.annotating import (
    Annotation,
    annotate,
    annotation_of,
    copied_with_annotations,
    placed_layers,
    taught_to_be_quantized,
)
from strop.compat.tfmot.quantization.configured import QuantizeConfig, QuantizeWrapper
from strop.compat.tfmot.quantization.keras import default_8bit, quantizers
from strop.compat.tfmot.quantization.schemes import (
    ClustersKept,
    Default8BitQuantizeScheme,
    QuantizeScheme,
    ZerosKept,
)
from strop.core.errors import message
from strop.train.quantized_layer import QuantizedLayer
from strop.train.ranges import FakeQuantize

__all__ = [
    "QuantizeConfig",
    "QuantizeScheme",
    "default_8bit",
    "quantize_annotate_layer",
    "quantize_annotate_model",
    "quantize_apply",
    "quantize_model",
    "quantize_scope",
    "quantizers",
]

_DEFAULT = Default8BitQuantizeScheme()


def quantize_model(to_quantize: Any, quantized_layer_name_prefix: str = "quant_") -> Any:
    """Return a model to be trained that rounds as the integer model made of it will.

    Compile it and fit it as any; `tf.lite.TFLiteConverter.from_keras_model` makes integers of it. Layers that have no
    integer form stay in float, and are listed in a warning.

    Args:
        to_quantize: A built Sequential or Functional model; it is not changed.
        quantized_layer_name_prefix: Of the names of layers whose weights are rounded.

    Returns:
        Another model with copies of the weights, uncompiled.

    Raises:
        ValueError: If it is of a class of its own, or not built.
        ModelError: If it can't be copied.
    """
    refuse_subclassed(to_quantize)
    annotations = {
        name: annotation_of(layer) or Annotation() for name, layer in placed_layers(to_quantize)
    }
    return taught_to_be_quantized(to_quantize, _DEFAULT, annotations, quantized_layer_name_prefix)


def quantize_annotate_layer(to_annotate: Any, quantize_config: Any = None) -> Any:
    """Return a layer, the same, that `quantize_apply` is to quantize.

    Args:
        to_annotate: A layer, built or not.
        quantize_config: How; None for the default.

    Raises:
        ValueError: If it is no layer, or the config is none.
    """
    if not isinstance(to_annotate, keras.layers.Layer) or isinstance(to_annotate, keras.Model):
        raise ValueError(f"expected a Keras layer, got a '{type(to_annotate).__name__}'")
    if quantize_config is not None and not isinstance(quantize_config, QuantizeConfig):
        name = type(quantize_config).__name__
        raise ValueError(f"expected an instance of a QuantizeConfig, got a '{name}'")
    annotate(to_annotate, Annotation(quantize_config))
    return to_annotate


def quantize_annotate_model(to_annotate: Any) -> Any:
    """Return a copy of a model all of whose layers `quantize_apply` is to quantize, those annotated before as they were.

    Raises:
        ValueError: If it is no Sequential or Functional model.
        ModelError: If it can't be copied.
    """
    made = copied_with_annotations(to_annotate)
    for _, layer in placed_layers(made):
        annotate(layer, Annotation())
    return made


def quantize_apply(
    model: Any,
    scheme: QuantizeScheme = _DEFAULT,
    quantized_layer_name_prefix: str = "quant_",
) -> Any:
    """Return a model to be trained in which the layers that are annotated round as integer ones will.

    Args:
        model: A built Sequential or Functional model with annotated layers; it is not changed.
        scheme: What becomes of the weights.
        quantized_layer_name_prefix: Of the names of layers whose weights are rounded.

    Returns:
        Another model with copies of the weights, uncompiled.

    Raises:
        ValueError: If no layer is annotated, the model is of a class of its own, or it is not built.
        ModelError: If it can't be copied.
    """
    refuse_subclassed(model)
    found = {name: annotation_of(layer) for name, layer in placed_layers(model)}
    annotations = {name: one for name, one in found.items() if one is not None}
    if not annotations:
        raise ValueError(
            message(
                f"no layer of the model '{model.name}' is annotated.",
                "Annotate layers with quantize_annotate_layer, or all of them.",
                next_step="quantize_apply(quantize_annotate_model(model))",
            )
        )
    return taught_to_be_quantized(model, scheme, annotations, quantized_layer_name_prefix)


def quantize_scope(*custom_objects: dict[str, Any]) -> Any:
    """Return a scope in which models that are taught to be quantized can be loaded, and made.

    Args:
        *custom_objects: Classes of one's own, by name.
    """
    kinds = (FakeQuantize, QuantizedLayer, QuantizeWrapper, ZerosKept, ClustersKept)
    known = {kind.__name__: kind for kind in kinds}
    for given in custom_objects:
        known |= given
    return keras.saving.custom_object_scope(known)
