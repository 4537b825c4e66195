"""A layer with a kernel that computes as integer engines do: its kernel rounded, the normalization behind it a part of it.

References:
    Jacob et al., *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference*, CVPR
    2018, sections 3 and 3.2: simulated quantization, batch normalization folded. Esser et al., *Learned Step Size
    Quantization*, ICLR 2020, Eqs. 1 to 3: steps that are trained, here their logarithm, as in Jain et al., *Trained
    Quantization Thresholds for Accurate and Efficient Fixed-Point Inference of Deep Neural Networks*, MLSys 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self, final

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from strop.numerics.folding import batch_normalization
from strop.numerics.grids import (
    bounded,
    largest_code,
    short,
    steps_of_least_error,
    steps_of_weights,
    symmetric_grid,
)
from strop.train.ranges import (
    LEARNED,
    MOVING_AVERAGE,
    PLAIN_BITS,
    constant,
    straight_through,
    with_gradient,
)


@final
@keras.saving.register_keras_serializable(package="strop")
class QuantizedLayer(keras.layers.Layer):  # type: ignore[misc]
    """A layer that computes with its kernel rounded, the batch normalization behind it being part of it.

    With a scale ``s = γ / √(σ² + ε)`` of an output channel, folding batch normalization makes the kernel ``s·W``. The
    step of each channel is a share of its largest weight, or learned, so that ``round(s·W) = s·round(W)``: rounding
    the kernel as it is simulates the folded one, whatever the statistics, and nothing is divided by ``s`` (Eq. 14 of
    Jacob et al.; tests/numerics/test_grids.py holds the grids to it).

    Attributes:
        layer: The layer, with the weights as they are trained.
        normalization: The batch normalization; None where there is none, or where it was folded.
    """

    def __init__(
        self,
        layer: Any,
        normalization: Any = None,
        *,
        bits: int = 8,
        ranges: str = MOVING_AVERAGE,
        per_channel: bool = True,
        is_settled: bool = False,
        **kwargs: Any,
    ) -> None:
        """Set up.

        Args:
            layer: One whose class `channel_axes_of` knows.
            normalization: Batch normalization over the layer's channels.
            bits: Width of a weight's code, from 2 to 8.
            ranges: ``moving_average``: steps are those of the largest weights; ``learned``: by gradients.
            per_channel: Whether each output channel has a step of its own.
            is_settled: Whether steps are given and stay; see `settled`.
            **kwargs: As of any layer.
        """
        super().__init__(**{"dtype": "float32", **kwargs})
        self.layer, self.normalization = layer, normalization
        self.bits, self.ranges, self.per_channel = bits, ranges, per_channel
        self.is_settled = is_settled
        self.supports_masking = bool(layer.supports_masking)

    def build(self, input_shape: Any) -> None:
        """Make the steps' variables, and the layer's where it has none yet."""
        if not self.layer.built:
            self.layer.build(input_shape)
        if self.normalization is not None:
            if not self.normalization.built:
                self.normalization.build(self.layer.compute_output_shape(input_shape))
            self.are_statistics_settled = self.add_weight(
                name="are_statistics_settled", shape=(), initializer="zeros", trainable=False
            )
        self.codes = self.step = None
        if self.is_settled:
            self.codes, self.step = (
                self.add_weight(
                    name=name, shape=shape, dtype=dtype, initializer=first, trainable=False
                )
                for name, shape, dtype, first in (
                    ("codes", self.layer.kernel.shape, "int8", "zeros"),
                    ("step", self._steps_shape(per_channel=True), "float32", "ones"),
                )
            )
        elif self.ranges == LEARNED:
            self.step = self.add_weight(
                name="logarithm_of_step",
                shape=self._steps_shape(per_channel=self.per_channel),
                initializer=constant(np.log(self._first_steps())),
                trainable=bool(self.layer.trainable),
            )
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return what the layer answers with its kernel rounded, normalized."""
        outputs = self._answer(inputs, self._rounded())
        return outputs if self.normalization is None else self._normalized(outputs, bool(training))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the layer's."""
        return self.layer.compute_output_shape(input_shape)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Return the layer's."""
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        written = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "layer": written(self.layer),
            "normalization": self.normalization and written(self.normalization),
            "bits": self.bits,
            "ranges": self.ranges,
            "per_channel": self.per_channel,
            "is_settled": self.is_settled,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the layer that `get_config` wrote down."""
        read = keras.saving.deserialize_keras_object
        inner = {name: read(config[name]) for name in ("layer", "normalization") if config[name]}
        return cls(**{**config, **inner})

    def settle(self) -> None:
        """Normalize by the moving statistics from now on in training too, and leave them as they are."""
        if self.normalization is not None:
            self.are_statistics_settled.assign(1.0)

    def settled(self, name: str) -> QuantizedLayer:
        """Return another layer: the normalization folded, the kernel rounded for good, its steps fixed.

        The layer within has the rounded weights, and not those that were trained: engines need no others, and zeros
        and clusters show. It computes with their codes.
        """
        kernel = _numpy(self.layer.kernel)
        steps = np.broadcast_to(self._steps(kernel), self._steps_shape(per_channel=True))
        codes = symmetric_grid(steps, bits=self.bits).encode(kernel)
        bias = None if self.layer.bias is None else _numpy(self.layer.bias)
        if self.normalization is not None:
            scale, offset = _affine_of(self.normalization)
            along = scale.reshape(steps.shape)
            kernel, codes, steps = kernel * along, codes * np.sign(along), steps * np.abs(along)
            bias = offset if bias is None else bias * scale + offset
        # Channels that are nothing beside the others get a wider step, by which they are rounded anew.
        wider = bounded(steps)
        codes = np.where(
            wider > steps, symmetric_grid(wider, bits=self.bits).encode(kernel), codes
        )
        wider = short(wider)
        made = QuantizedLayer(
            _rebuilt(self.layer, codes * wider, bias), bits=self.bits, is_settled=True, name=name
        )
        made.build(None)
        assert made.codes is not None  # noqa: S101 - settled layers have them
        assert made.step is not None  # noqa: S101 - and a step
        made.codes.assign(codes.astype(np.int8))
        made.step.assign(wider)
        return made

    def _first_steps(self) -> NDArray[np.float32]:
        """Return the steps to begin with, for the kernel as it is."""
        kernel = _numpy(self.layer.kernel)
        axes = channel_axes_of(self.layer) if self.per_channel else ()
        chosen = steps_of_weights if self.bits >= PLAIN_BITS else steps_of_least_error
        return chosen(kernel, axes, bits=self.bits)

    def _steps(self, kernel: NDArray[Any]) -> NDArray[np.float32]:
        """Return the steps as they are now."""
        if self.step is None:
            axes = channel_axes_of(self.layer) if self.per_channel else ()
            return steps_of_weights(kernel, axes, bits=self.bits)
        found: NDArray[np.float32] = np.exp(_numpy(self.step))
        return found

    def _steps_shape(self, *, per_channel: bool) -> tuple[int, ...]:
        shape, axes = self.layer.kernel.shape, channel_axes_of(self.layer) if per_channel else ()
        return tuple(n if place - len(shape) in axes else 1 for place, n in enumerate(shape))

    def _rounded(self) -> Any:
        """Return the kernel rounded, with gradients that pass through the rounding."""
        if self.is_settled:
            # Engines take constant codes with a factor for weights of integers, which they are. (They take fake
            # quantization of constants for it too, but LiteRT's converter fails on it where channels lie along
            # another axis after it has turned the kernel as its own kernels want it: in all but Conv2D.)
            return ops.cast(self.codes, "float32") * self.step
        kernel, most = ops.convert_to_tensor(self.layer.kernel), largest_code(self.bits)
        if self.step is None:
            axes = channel_axes_of(self.layer) if self.per_channel else ()
            step = ops.stop_gradient(_step_of_largest(kernel, axes, most))
        else:
            share = 1 / math.sqrt(math.prod(kernel.shape) / math.prod(self.step.shape) * most)
            step = ops.exp(with_gradient(ops.convert_to_tensor(self.step), share))
        return ops.clip(straight_through(kernel / step), -most, most) * step

    def _answer(self, inputs: Any, kernel: Any) -> Any:
        """Return what the layer answers with another kernel."""
        replaced = {id(self.layer.kernel): kernel}

        def values(variables: Sequence[Any]) -> list[Any]:
            # All of them, and not the kernel alone: where this runs in a stateless call itself, what is not named in
            # the inner one would be looked up outside of both.
            return [replaced.get(id(v), ops.convert_to_tensor(v)) for v in variables]

        layer = self.layer
        return layer.stateless_call(
            values(layer.trainable_variables), values(layer.non_trainable_variables), inputs
        )[0]

    def _normalized(self, outputs: Any, training: bool) -> Any:
        done, rank = self.normalization, len(outputs.shape)
        is_first = getattr(self.layer, "data_format", "") == "channels_first"
        channels = 1 if is_first else rank - 1
        statistics = done.moving_mean, done.moving_variance
        used = list(map(ops.convert_to_tensor, statistics))
        if training and done.trainable:
            of_batch = ops.moments(outputs, [axis for axis in range(rank) if axis != channels])
            used = [self._followed(*pair) for pair in zip(statistics, used, of_batch, strict=True)]
        return ops.batch_normalization(
            outputs, *used, channels, done.beta, done.gamma, done.epsilon
        )

    def _followed(self, moving: Any, kept: Any, of_batch: Any) -> Any:
        """Return what to normalize by in training, and let a moving statistic follow it, until it is settled."""
        settled, rate = self.are_statistics_settled, 1 - self.normalization.momentum
        moving.assign(kept + (1 - settled) * rate * (ops.stop_gradient(of_batch) - kept))
        return ops.where(settled > 0, kept, of_batch)


def channel_axes_of(layer: Any) -> tuple[int, ...]:
    """Return the axes of a layer's kernel that number its output channels, counted from the end.

    Raises:
        KeyError: If its class is none that is known here.
    """
    for kind in type(layer).__mro__:
        if kind.__module__.startswith("keras.") and kind.__name__ in _CHANNEL_AXES:
            return _CHANNEL_AXES[kind.__name__]
    raise KeyError(type(layer).__name__)


_CHANNEL_AXES: dict[str, tuple[int, ...]] = {
    "Dense": (-1,),
    "BaseConv": (-1,),
    "BaseConvTranspose": (-2,),
    "BaseDepthwiseConv": (-2, -1),
}


def _step_of_largest(kernel: Any, axes: Sequence[int], most: int) -> Any:
    rank = len(kernel.shape)
    others = [axis for axis in range(rank) if axis - rank not in axes]
    largest = ops.max(ops.abs(kernel), axis=others, keepdims=True)
    # As `strop.numerics.grids.steps_of_weights` bounds it, but for kernels of zeros alone.
    return ops.maximum(ops.maximum(largest, ops.max(largest) * 2.0**-16), 1e-30) / most


def _affine_of(done: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ones = np.ones(done.moving_mean.shape)
    folded = batch_normalization(
        _numpy(done.moving_mean),
        _numpy(done.moving_variance),
        ones if done.gamma is None else _numpy(done.gamma),
        0 * ones if done.beta is None else _numpy(done.beta),
        done.epsilon,
    )
    return folded.scale, folded.offset


def _rebuilt(layer: Any, kernel: NDArray[Any], bias: NDArray[Any] | None) -> Any:
    """Return a layer like `layer` with other weights; one with a bias where there is one."""
    config = {**layer.get_config(), "use_bias": bias is not None}
    made = type(layer).from_config(config)
    made.build(_input_shape_of(layer))
    made.kernel.assign(kernel)
    if bias is not None:
        made.bias.assign(bias)
    return made


def _input_shape_of(layer: Any) -> Any:
    (shape,) = layer._build_shapes_dict.values()
    return shape


def _numpy(variable: Any) -> NDArray[Any]:
    found: NDArray[Any] = ops.convert_to_numpy(variable)
    return found
