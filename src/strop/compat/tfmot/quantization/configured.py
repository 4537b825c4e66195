"""Layers that are rounded as someone's own config says."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, final

import keras
from keras import ops

from strop.train.ranges import FakeQuantize


class QuantizeConfig(abc.ABC):
    """Says what of a layer is rounded, and how. To make one of your own, write all methods but `from_config`."""

    @abc.abstractmethod
    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """Return the layer's weights that are rounded, each with its quantizer."""

    @abc.abstractmethod
    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """Return the layer's functions whose results are rounded, each with its quantizer."""

    @abc.abstractmethod
    def set_quantize_weights(self, layer: Any, quantize_weights: Sequence[Any]) -> None:
        """Set the layer's attributes to rounded weights, in the order of `get_weights_and_quantizers`."""

    @abc.abstractmethod
    def set_quantize_activations(self, layer: Any, quantize_activations: Sequence[Any]) -> None:
        """Set the layer's attributes to functions that round, in the order of `get_activations_and_quantizers`."""

    @abc.abstractmethod
    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """Return the quantizers of the layer's outputs."""

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the config that `get_config` wrote down."""
        return cls(**config)


@final
@keras.saving.register_keras_serializable(package="strop")
class QuantizeWrapper(keras.layers.Wrapper):  # type: ignore[misc]
    """A layer that computes with what its config has rounded.

    Attributes:
        layer: The layer, with the weights as they are trained.
        quantize_config: What of it is rounded.
        rounds_input: Whether its input is rounded too, for nobody did before.
    """

    def __init__(
        self,
        layer: Any,
        quantize_config: QuantizeConfig,
        *,
        rounds_input: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, **kwargs)
        self.quantize_config, self.rounds_input = quantize_config, rounds_input
        self.input_range = FakeQuantize(name="input_range") if rounds_input else None

    def build(self, input_shape: Any = None) -> None:
        """Make the quantizers' variables, and the layer's where it has none yet."""
        if not self.layer.built:
            self.layer.build(input_shape)
        if self.input_range is not None:
            self.input_range.build(input_shape)
        config, outputs = self.quantize_config, self.layer.compute_output_shape(input_shape)
        self._weights_rounded = [
            (weight, quantizer, quantizer.build(weight.shape, weight.name, self))
            for weight, quantizer in config.get_weights_and_quantizers(self.layer)
        ]
        self._functions_rounded = [
            (function, quantizer, quantizer.build(outputs, f"activation_{place}", self))
            for place, (function, quantizer) in enumerate(
                config.get_activations_and_quantizers(self.layer)
            )
        ]
        self._outputs_rounded = [
            (quantizer, quantizer.build(outputs, f"output_{place}", self))
            for place, quantizer in enumerate(config.get_output_quantizers(self.layer))
        ]
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return what the layer answers with what is rounded."""
        training = bool(training)
        if self.input_range is not None:
            inputs = self.input_range(inputs, training=training)
        rounded = [
            quantizer(ops.convert_to_tensor(weight), training, weights=variables)
            for weight, quantizer, variables in self._weights_rounded
        ]
        stand_in = _StandIn(self.layer)
        self.quantize_config.set_quantize_weights(stand_in, rounded)
        self.quantize_config.set_quantize_activations(
            stand_in, [_after(*part, training) for part in self._functions_rounded]
        )
        outputs = self._answer(inputs, stand_in.given)
        for quantizer, variables in self._outputs_rounded:
            outputs = quantizer(outputs, training, weights=variables)
        return outputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the layer's."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        return {
            **super().get_config(),
            "quantize_config": keras.saving.serialize_keras_object(self.quantize_config),
            "rounds_input": self.rounds_input,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Return the layer that `get_config` wrote down."""
        read = keras.saving.deserialize_keras_object
        inner = {
            name: read(config[name], custom_objects=custom_objects)
            for name in ("layer", "quantize_config")
        }
        return cls(**{**config, **inner})

    def begin(self) -> None:
        """Begin with the ranges that the weights have."""
        for weight, quantizer, variables in self._weights_rounded:
            quantizer(ops.convert_to_tensor(weight), True, weights=variables)

    def _answer(self, inputs: Any, given: dict[str, Any]) -> Any:
        """Return what the layer answers with other weights and functions."""
        layer, replaced, functions = self.layer, {}, {}
        for name, value in given.items():
            before = getattr(layer, name)
            if isinstance(before, keras.Variable):
                replaced[id(before)] = value
            else:
                functions[name] = value
        values = [
            [replaced.get(id(v), ops.convert_to_tensor(v)) for v in variables]
            for variables in (layer.trainable_variables, layer.non_trainable_variables)
        ]
        with _with_attributes(layer, functions):
            return layer.stateless_call(*values, inputs)[0]


class _StandIn:
    """Stands for a layer before a config, and notes which attributes it sets.

    Keras' layers don't let their weights be replaced by tensors.
    """

    def __init__(self, layer: Any) -> None:
        object.__setattr__(self, "_layer", layer)
        object.__setattr__(self, "given", {})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.given[name] = value


@contextmanager
def _with_attributes(layer: Any, attributes: dict[str, Any]) -> Iterator[None]:
    before = {name: getattr(layer, name) for name in attributes}
    for name, value in attributes.items():
        setattr(layer, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(layer, name, value)


def _after(
    function: Callable[[Any], Any], quantizer: Any, variables: Any, training: bool
) -> Callable[[Any], Any]:
    return lambda inputs: quantizer(function(inputs), training, weights=variables)
