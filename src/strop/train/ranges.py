"""Layers that round as integer engines do, and hold the ranges that they round to.

What they compute in inference is what TensorFlow's fake quantization computes, and on TensorFlow they are those
operations, which converters take for what they are: the ranges of integer tensors.

References:
    Jacob et al., *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference*, CVPR
    2018, section 3: simulated quantization, ranges as moving averages. Esser et al., *Learned Step Size Quantization*,
    ICLR 2020, Eqs. 1 to 3, and Bhalgat et al., *LSQ+*, CVPR workshops 2020: ranges that are trained; their logarithm
    is trained here, as in Jain et al., *Trained Quantization Thresholds for Accurate and Efficient Fixed-Point
    Inference of Deep Neural Networks*, MLSys 2020, so that a step of the optimizer changes small ranges and large ones
    by the same share.
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
    grid_for_range,
    largest_code,
    short,
    steps_of_least_error,
    steps_of_weights,
    symmetric_grid,
)

MOVING_AVERAGE, LEARNED = "moving_average", "learned"
# Of the way to what a batch holds, a range goes so much where that is narrower, and where it is wider: the largest of
# a few numbers is mostly less than of many, so that an even mean would cut off more the smaller batches are.
_NARROWS, _WIDENS = 0.01, 0.1
_LEAST_RANGE = 1e-6
_PLAIN_BITS = 8  # at which steps that fit the largest weight are as good as any


@final
@keras.saving.register_keras_serializable(package="strop")
class FakeQuantize(keras.layers.Layer):  # type: ignore[misc]
    """Round tensors to the codes of one grid, whose range follows what the tensors hold in training.

    Several tensors given as a list share the range, as those do that are about to be joined. Above 8 bits the range
    lies evenly about zero, as integer kernels of that width want it.
    """

    def __init__(
        self,
        *,
        bits: int = 8,
        ranges: str = MOVING_AVERAGE,
        fixed: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Set up.

        Args:
            bits: Width of a code, from 2 to 16.
            ranges: ``moving_average`` of what each batch holds, or ``learned`` by gradients from what the first holds.
            fixed: The smallest and the largest value, where they are known and stay.
            **kwargs: As of any layer.
        """
        super().__init__(**{"dtype": "float32", **kwargs})
        self.bits, self.ranges = bits, ranges
        self.fixed = None if fixed is None else tuple(map(float, fixed))
        self.supports_masking = True
        self._seen: list[tuple[float, float]] | None = None  # in calibration, a pair a batch

    def build(self, input_shape: Any) -> None:
        """Make the range's variables."""
        low, high = self.fixed or (0.0, 0.0)
        self.minimum, self.maximum = (
            self.add_weight(name=name, shape=(), initializer=_constant(end), trainable=False)
            for name, end in (("minimum", low), ("maximum", high))
        )
        # How far the range goes towards that of the next batch: all the way the first time.
        self.rate = self.add_weight(
            name="rate",
            shape=(),
            initializer=_constant(0.0 if self.fixed else 1.0),
            trainable=False,
        )
        if self.ranges == LEARNED and not self.fixed:
            self.stretch = self.add_weight(name="stretch", shape=(2,), initializer="zeros")
        else:
            self.stretch = None
        self.built = True

    def call(self, inputs: Any, training: bool = False, follows: bool = True) -> Any:
        """Return the inputs rounded; in training, let the range follow them.

        Args:
            inputs: A tensor, or a list of them.
            training: Whether the model is being trained.
            follows: Whether the range follows these inputs; not those that were computed of others on the same grid.
        """
        tensors = [
            ops.cast(tensor, "float32")
            for tensor in (inputs if isinstance(inputs, list | tuple) else [inputs])
        ]
        if self._seen is None:
            if training and follows and not self.fixed:
                self._follow(tensors)
            tensors = [self._rounded(tensor, training) for tensor in tensors]
        elif follows:
            self._seen.append(tuple(map(float, _range_of(tensors))))  # type: ignore[arg-type]
        return tensors if isinstance(inputs, list | tuple) else tensors[0]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shapes of the inputs."""
        return input_shape

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Return the masks of the inputs."""
        return previous_mask

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        config: dict[str, Any] = super().get_config()
        return {**config, "bits": self.bits, "ranges": self.ranges, "fixed": self.fixed}

    def begin_calibration(self) -> None:
        """Round nothing from now on, and note what is seen. For eager calls only."""
        self._seen = []

    def end_calibration(self) -> None:
        """Take for the range all that the batches held, where there were any."""
        seen, self._seen = self._seen, None
        if seen and not self.fixed:
            self.minimum.assign(min(low for low, _ in seen))
            self.maximum.assign(max(high for _, high in seen))
            self.rate.assign(self._rate)

    def settle(self) -> None:
        """Have the range follow nothing from now on."""
        self.rate.assign(0.0)

    def settled(self, name: str) -> FakeQuantize:
        """Return another layer, of this one's range as it is, fixed."""
        low, high = (float(ops.convert_to_numpy(end)) for end in self._ends())
        grid = grid_for_range(np.array(low), np.array(high), bits=self.bits)
        return FakeQuantize(
            bits=self.bits, fixed=(float(grid.minimum), float(grid.maximum)), name=name
        )

    @property
    def _rate(self) -> float:
        # A learned range is left to the gradients once it stands for something.
        return 0.0 if self.ranges == LEARNED else _NARROWS

    def _follow(self, tensors: Sequence[Any]) -> None:
        faster = ops.minimum(self.rate * (_WIDENS / _NARROWS), 1.0)
        for end, seen in zip((self.minimum, self.maximum), _range_of(tensors), strict=True):
            further = ops.stop_gradient(seen) - end
            is_wider = further * ops.sign(seen) > 0
            end.assign(end + ops.where(is_wider, faster, self.rate) * further)
        self.rate.assign(ops.minimum(self.rate, self._rate))

    def _ends(self) -> tuple[Any, Any]:
        low, high = (
            ops.stop_gradient(ops.convert_to_tensor(end)) for end in (self.minimum, self.maximum)
        )
        if self.stretch is not None:
            factors = ops.exp(ops.convert_to_tensor(self.stretch))
            low, high = low * factors[0], high * factors[1]
        if self.bits <= _PLAIN_BITS:
            return low, ops.maximum(high, low + _LEAST_RANGE)
        most = largest_code(self.bits)
        step = ops.maximum(ops.maximum(-low, high), _LEAST_RANGE) / most
        return -(most + 1) * step, most * step

    def _rounded(self, tensor: Any, training: bool) -> Any:
        # As numbers, fixed ends are constants of the graph, which is what converters look for.
        low, high = self.fixed or self._ends()
        if self.stretch is not None and training:
            return self._rounded_with_gradients(tensor, low, high)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            return tf.quantization.fake_quant_with_min_max_vars(
                tensor, low, high, num_bits=self.bits
            )
        return _on_grid(tensor, low, high, self.bits)

    def _rounded_with_gradients(self, tensor: Any, low: Any, high: Any) -> Any:
        # Section 2.2 of Esser et al.: the more numbers a range is of, the larger its gradient would be.
        size = math.prod(n or 1 for n in tensor.shape[1:])
        share = 1 / math.sqrt(size * (2**self.bits - 1))
        low, high = _with_gradient(low, share), _with_gradient(high, share)
        return _on_grid(tensor, low, high, self.bits)


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
                initializer=_constant(np.log(self._first_steps())),
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
        chosen = steps_of_weights if self.bits >= _PLAIN_BITS else steps_of_least_error
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
            step = ops.exp(_with_gradient(ops.convert_to_tensor(self.step), share))
        return ops.clip(_straight_through(kernel / step), -most, most) * step

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


def _range_of(tensors: Sequence[Any]) -> tuple[Any, Any]:
    """Return the smallest and the largest value of all, 0.0 among them."""
    low, high = ops.zeros(()), ops.zeros(())
    for tensor in tensors:
        low, high = ops.minimum(low, ops.min(tensor)), ops.maximum(high, ops.max(tensor))
    return low, high


def _straight_through(values: Any) -> Any:
    """Return values rounded, whose gradient is that of the values."""
    return values + ops.stop_gradient(ops.round(values) - values)


def _with_gradient(values: Any, share: float) -> Any:
    """Return the same values, with a share of the gradient."""
    return values * share + ops.stop_gradient(values * (1 - share))


def _on_grid(tensor: Any, low: Any, high: Any, bits: int) -> Any:
    """Return `tensor` on the grid that `strop.numerics.grids.grid_for_range` has, with gradients to all three.

    Within the range the gradient passes; beyond it goes to the end of the range there. That of the step is what Eq. 3
    of Esser et al. says, by differentiating what stands here.
    """
    last = float(2**bits - 1)
    step = (high - low) / last
    zero = ops.clip(_straight_through(-low / step), 0.0, last)
    return (ops.clip(_straight_through(tensor / step) + zero, 0.0, last) - zero) * step


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


def _constant(value: Any) -> Any:
    return lambda shape, dtype=None: ops.broadcast_to(ops.convert_to_tensor(value, dtype), shape)


def _numpy(variable: Any) -> NDArray[Any]:
    found: NDArray[Any] = ops.convert_to_numpy(variable)
    return found
