"""Quantizers: how one tensor is rounded, and what range its codes have.

They compute as TensorFlow's fake quantization does, whose gradient passes within the range; symmetric ones have as many
codes below zero as above, so that zeros stay exact.
"""

from __future__ import annotations

import abc
from typing import Any, Self, final

import keras
from keras import ops

_FOLLOWS = 0.01  # of the way to what a batch holds, once there was a first
_AT_FIRST = 6.0  # before anything was seen


class Quantizer(abc.ABC):
    """Rounds a tensor. To make one of your own, write `build`, `__call__` and `get_config`."""

    @abc.abstractmethod
    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Return the variables it needs, made by `layer.add_weight`."""

    @abc.abstractmethod
    def __call__(self, inputs: Any, training: bool, weights: dict[str, Any], **kwargs: Any) -> Any:
        """Return the inputs rounded; `weights` are what `build` returned."""

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the quantizer of a config."""
        return cls(**config)


class _Ranged(Quantizer):
    """A quantizer whose range follows what it is given in training."""

    def __init__(self, num_bits: int, per_axis: bool, symmetric: bool, narrow_range: bool) -> None:
        """Set up.

        Args:
            num_bits: Width of a code, from 2 to 16.
            per_axis: Whether each place along the last axis has a range of its own.
            symmetric: Whether the range reaches as far below zero as above.
            narrow_range: Whether the lowest code is left out.
        """
        self.num_bits, self.per_axis = num_bits, per_axis
        self.symmetric, self.narrow_range = symmetric, narrow_range

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Return the range's variables."""
        shape = (tensor_shape[-1],) if self.per_axis else ()
        return {
            part: layer.add_weight(
                name=f"{name}_{part}",
                shape=() if part == "rate" else shape,
                initializer=keras.initializers.Constant(first),
                trainable=False,
            )
            for part, first in (("min", -_AT_FIRST), ("max", _AT_FIRST), ("rate", 1.0))
        }

    def __call__(self, inputs: Any, training: bool, weights: dict[str, Any], **kwargs: Any) -> Any:
        """Return the inputs rounded; in training, let the range follow them."""
        low, high = weights["min"], weights["max"]
        if training:
            for end, value in zip((low, high), self._seen(inputs), strict=True):
                end.assign(self.followed(end, ops.stop_gradient(value), weights["rate"]))
            weights["rate"].assign(ops.minimum(weights["rate"], _FOLLOWS))
        return _rounded(
            inputs,
            low,
            high,
            bits=self.num_bits,
            is_narrow=self.narrow_range or self.symmetric,
            per_axis=self.per_axis,
        )

    def followed(self, end: Any, seen: Any, rate: Any) -> Any:
        """Return an end of the range after a tensor was seen; `rate` is 1 for the first."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        names = ("num_bits", "per_axis", "symmetric", "narrow_range")
        return {name: getattr(self, name) for name in names}

    def _seen(self, inputs: Any) -> tuple[Any, Any]:
        axes = tuple(range(len(inputs.shape) - 1)) if self.per_axis else None
        low = ops.minimum(ops.min(inputs, axis=axes), 0.0)
        high = ops.maximum(ops.max(inputs, axis=axes), 0.0)
        if not self.symmetric:
            return low, high
        most = ops.maximum(-low, high)
        return -most, most


@final
class LastValueQuantizer(_Ranged):
    """The range of what was given last in training: for weights."""

    def followed(self, end: Any, seen: Any, rate: Any) -> Any:
        """Return the end that was seen."""
        return seen


@final
class AllValuesQuantizer(_Ranged):
    """The range of all that was ever given in training."""

    def followed(self, end: Any, seen: Any, rate: Any) -> Any:
        """Return the end that lies farther out; the one seen, for the first."""
        farther = ops.where(ops.abs(seen) > ops.abs(end), seen, end)
        return ops.where(rate >= 1.0, seen, farther)


@final
class MovingAverageQuantizer(_Ranged):
    """A range that follows what is given in training slowly: for activations."""

    def followed(self, end: Any, seen: Any, rate: Any) -> Any:
        """Return an end a little nearer to what was seen; there, for the first."""
        return end + rate * (seen - end)


@final
class FixedQuantizer(Quantizer):
    """A range that is known and stays."""

    def __init__(
        self, num_bits: int, init_min: float, init_max: float, narrow_range: bool
    ) -> None:
        """Set up.

        Args:
            num_bits: Width of a code, from 2 to 16.
            init_min: The smallest value.
            init_max: The largest value.
            narrow_range: Whether the lowest code is left out.
        """
        self.num_bits, self.narrow_range = num_bits, narrow_range
        self.init_min, self.init_max = init_min, init_max

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Return nothing: there is nothing to learn."""
        return {}

    def __call__(self, inputs: Any, training: bool, weights: dict[str, Any], **kwargs: Any) -> Any:
        """Return the inputs rounded."""
        low, high = float(self.init_min), float(self.init_max)
        return _rounded(
            inputs, low, high, bits=self.num_bits, is_narrow=self.narrow_range, per_axis=False
        )

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        names = ("num_bits", "init_min", "init_max", "narrow_range")
        return {name: getattr(self, name) for name in names}


def _rounded(
    inputs: Any, low: Any, high: Any, *, bits: int, is_narrow: bool, per_axis: bool
) -> Any:
    import tensorflow as tf

    fake_quantization = (
        tf.quantization.fake_quant_with_min_max_vars_per_channel
        if per_axis
        else tf.quantization.fake_quant_with_min_max_vars
    )
    return fake_quantization(inputs, low, high, num_bits=bits, narrow_range=is_narrow)
