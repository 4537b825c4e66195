"""The layer that rounds a tensor as integer engines do, and holds the range that it rounds to.

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
from typing import Any, final

import keras
import numpy as np
from keras import ops

from strop.numerics.grids import (
    grid_for_range,
    largest_code,
)

MOVING_AVERAGE, LEARNED = "moving_average", "learned"
# Of the way to what a batch holds, a range goes so much where that is narrower, and where it is wider: the largest of
# a few numbers is mostly less than of many, so that an even mean would cut off more the smaller batches are.
_NARROWS, _WIDENS = 0.01, 0.1
_LEAST_RANGE = 1e-6
PLAIN_BITS = 8  # at which steps that fit the largest weight are as good as any


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
            self.add_weight(name=name, shape=(), initializer=constant(end), trainable=False)
            for name, end in (("minimum", low), ("maximum", high))
        )
        # How far the range goes towards that of the next batch: all the way the first time.
        self.rate = self.add_weight(
            name="rate",
            shape=(),
            initializer=constant(0.0 if self.fixed else 1.0),
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
        if self.bits <= PLAIN_BITS:
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
        low, high = with_gradient(low, share), with_gradient(high, share)
        return _on_grid(tensor, low, high, self.bits)


def _range_of(tensors: Sequence[Any]) -> tuple[Any, Any]:
    """Return the smallest and the largest value of all, 0.0 among them."""
    low, high = ops.zeros(()), ops.zeros(())
    for tensor in tensors:
        low, high = ops.minimum(low, ops.min(tensor)), ops.maximum(high, ops.max(tensor))
    return low, high


def straight_through(values: Any) -> Any:
    """Return values rounded, whose gradient is that of the values."""
    return values + ops.stop_gradient(ops.round(values) - values)


def with_gradient(values: Any, share: float) -> Any:
    """Return the same values, with a share of the gradient."""
    return values * share + ops.stop_gradient(values * (1 - share))


def _on_grid(tensor: Any, low: Any, high: Any, bits: int) -> Any:
    """Return `tensor` on the grid that `strop.numerics.grids.grid_for_range` has, with gradients to all three.

    Within the range the gradient passes; beyond it goes to the end of the range there. That of the step is what Eq. 3
    of Esser et al. says, by differentiating what stands here.
    """
    last = float(2**bits - 1)
    step = (high - low) / last
    zero = ops.clip(straight_through(-low / step), 0.0, last)
    return (ops.clip(straight_through(tensor / step) + zero, 0.0, last) - zero) * step


def constant(value: Any) -> Any:
    """Return an initializer that gives a value, whatever it is of."""
    return lambda shape, dtype=None: ops.broadcast_to(ops.convert_to_tensor(value, dtype), shape)
