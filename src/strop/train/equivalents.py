"""Layers that stand for others and compute the same, in forms that integer engines have kernels for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from strop.train.rebuilding import alike


def mean_of_all(operation: Any, shape: Sequence[int | None]) -> Any:
    """Return the layer for means of whole images, where a pooling layer gives these; None where it does not."""
    sizes = getattr(operation, "pool_size", None)
    is_last = getattr(operation, "data_format", "") == "channels_last"
    if not is_last or tuple(sizes or ()) != tuple(shape[1:-1]):
        return None
    # Padded to its own size, an image has a mean at each place, over what of it is there.
    if any(size != 1 for size in operation.compute_output_shape(tuple(shape))[1:-1]):
        return None
    kind = getattr(keras.layers, f"GlobalAveragePooling{len(shape) - 2}D")
    return kind(data_format="channels_last", keepdims=True, name=operation.name)


def identity_on(shape: Sequence[int | None], name: str) -> Any:
    """Return a depthwise convolution of one weight a channel that changes nothing, for good."""
    kind = keras.layers.DepthwiseConv2D if len(shape) == 4 else keras.layers.DepthwiseConv1D
    made = kind(
        1, use_bias=False, depthwise_initializer="ones", data_format="channels_last",
        trainable=False, dtype="float32", name=name,
    )  # fmt: skip
    made.build(tuple(shape))
    return made


def with_activation(layer: Any, function: Any) -> Any:
    """Return a layer with other weights of the same values, and another function."""
    made = alike(layer, {"activation": keras.activations.serialize(function)})
    made.build(*layer._build_shapes_dict.values())
    made.set_weights(layer.get_weights())
    return made


def depthwise_and_pointwise(layer: Any) -> list[Any]:
    """Return a separable convolution as the two that it is."""
    dimensions = "1D" if layer.rank == 1 else "2D"
    shared = {"data_format": layer.data_format, "trainable": layer.trainable, "dtype": "float32"}
    (shape,) = layer._build_shapes_dict.values()
    depthwise = getattr(keras.layers, f"DepthwiseConv{dimensions}")(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        depth_multiplier=layer.depth_multiplier,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        depthwise_regularizer=layer.depthwise_regularizer,
        depthwise_constraint=layer.depthwise_constraint,
        name=f"{layer.name}_depthwise",
        **shared,
    )
    depthwise.build(shape)
    depthwise.kernel.assign(layer.depthwise_kernel)
    pointwise = getattr(keras.layers, f"Conv{dimensions}")(
        layer.filters,
        1,
        use_bias=layer.use_bias,
        activation=layer.activation,
        kernel_regularizer=layer.pointwise_regularizer,
        bias_regularizer=layer.bias_regularizer,
        kernel_constraint=layer.pointwise_constraint,
        bias_constraint=layer.bias_constraint,
        name=layer.name,
        **shared,
    )
    pointwise.build(depthwise.compute_output_shape(shape))
    pointwise.kernel.assign(layer.pointwise_kernel)
    if layer.use_bias:
        pointwise.bias.assign(layer.bias)
    return [depthwise, pointwise]
