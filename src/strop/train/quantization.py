"""Quantization-aware training: a Keras model that computes as if in integers while it is taught, and integers after.

`quantization_aware` makes, of a model, another that rounds its kernels and the tensors between its layers as an
integer engine does; it is trained like any Keras model. What it gives in the end is a Keras model again, whose
operations converters take for integer ones. Where a tensor is rounded stands in `strop.train.rounding`, how in
`strop.train.ranges`.

What was pruned or clustered before stays so: zeros have the code 0 on each grid, and a kernel whose weights share a few
values gets one step for all of them, so that each value stays one code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from strop.core.errors import ModelError, ParameterError, message
from strop.core.samples import Samples
from strop.core.signature import Signature
from strop.graph.keras_calls import functional_of, in_float32, taken_apart, uncompiled
from strop.graph.keras_models import arranged
from strop.numerics.clustering import distinct_values
from strop.train.clustering import keep_clusters
from strop.train.exclusions import Exclusion, exclusions
from strop.train.kernels import kernels_of, sparsity_of
from strop.train.lessons import loss_weights_of
from strop.train.pruning import PRUNED_FROM, keep_pruned
from strop.train.quantized_layer import QuantizedLayer
from strop.train.ranges import LEARNED, MOVING_AVERAGE, FakeQuantize
from strop.train.rebuilding import copied, copy_state
from strop.train.rounding import Rounding

WEIGHT_BITS, ACTIVATION_BITS, RANGES = (4, 7, 8), (8, 16), (MOVING_AVERAGE, LEARNED)
_SETTLED_FOR = 0.3  # of the epochs, at their end
_SEEN_AT_ONCE = 64


@dataclass(frozen=True)
class Quantization:
    """What to quantize, and how.

    Attributes:
        weight_bits: Width of a weight's code, 4, 7 or 8. The kernels that read inputs have 7 at most, see
            `strop.train.rounding`.
        activation_bits: Width of the codes between layers, 8 or 16.
        ranges: ``moving_average`` of what batches hold; ``learned`` trains ranges and the steps of weights.
        exclude: Layers to leave in float with all that they contain: names, with or without those around them; names
            of classes; functions from a layer to a bool, or where they stand (``module:name``).
    """

    weight_bits: int = 8
    activation_bits: int = 8
    ranges: str = MOVING_AVERAGE
    exclude: tuple[Exclusion, ...] = ()

    def __post_init__(self) -> None:
        mistakes = [
            f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}"
            for name, value, choices in (
                ("weight_bits", self.weight_bits, WEIGHT_BITS),
                ("activation_bits", self.activation_bits, ACTIVATION_BITS),
                ("ranges", self.ranges, RANGES),
            )
            if value not in choices
        ]
        if mistakes:
            raise ParameterError("\n".join(mistakes))


@final
@dataclass(frozen=True)
class Aware:
    """A model that is taught to be quantized.

    Attributes:
        model: What is trained: a `keras.Model` of its own, with the inputs and outputs of the one that it was made of.
        left_in_float: The layers and operations that stay in float, with the reason.
        quantized: The layers whose kernels are rounded, by name.
        pruned: The kernels that had zeros in them, by the names of their layers.
        renamed: What layers of `model` are called in the one that it was made of, where that is another name.
    """

    model: Any
    left_in_float: Mapping[str, str]
    quantized: tuple[str, ...]
    pruned: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def callbacks(self) -> list[Any]:
        """What to give to `fit`: in the last third, statistics and ranges that follow batches are left as they are then.

        So the last epochs teach the very function that is run afterwards (section 3.2.2 of Krishnamoorthi, *Quantizing
        deep convolutional networks for efficient inference: A whitepaper*, 2018, arXiv:1806.08342). Learned ranges go on
        being learned. Training that ends before, by early stopping, ends without.
        """
        return [_Settling(self.model)]

    def keeping(self) -> list[Any]:
        """Return more callbacks for `fit`, which keep what came before: zeros of pruned kernels, and clusters."""
        zeros, clusters = keep_pruned(self.model), keep_clusters(self.model)
        return [callback for callback in (zeros, clusters) if callback.kernels]

    def calibrate(self, samples: Samples, signature: Signature) -> None:
        """Begin with ranges that samples show, as the model is without rounding between its layers.

        Args:
            samples: As for training; some hundreds do.
            signature: The model's: the names of its inputs.
        """
        quantizers = [layer for layer in self.model.layers if isinstance(layer, FakeQuantize)]
        for layer in quantizers:
            layer.begin_calibration()
        try:
            for start in range(0, len(samples), _SEEN_AT_ONCE):
                part = [
                    ops.convert_to_tensor(samples.inputs[name][start : start + _SEEN_AT_ONCE])
                    for name in signature.input_names
                ]
                self.model(arranged(self.model, part, signature), training=False)
        finally:
            for layer in quantizers:
                layer.end_calibration()

    def finished(self) -> Any:
        """Return the model as it is to be exported, another one, uncompiled.

        Batch normalization is folded and the kernels hold rounded weights; the layers that round are there still, with
        the ranges as they are now, and tell converters which integers to compute with.
        """
        made = keras.models.clone_model(uncompiled(self.model), clone_function=_finished_layer)
        for layer in made.layers:
            if not isinstance(layer, FakeQuantize | QuantizedLayer):
                copy_state(self.model.get_layer(layer.name), layer)
        return made

    def counted(self, finished: Any) -> tuple[dict[str, float], dict[str, int]]:
        """Return what is left of what came before, counted in what is exported.

        Args:
            finished: What `finished` returned.

        Returns:
            The share of zeros in the kernels that were pruned, and the number of codes (of values where they stay in
            float) in those that share a few, by layer. Codes are counted of the whole kernel; a batch normalization
            that turns the sign of some channels makes two codes of a cluster there.
        """
        sparsity = {
            self._called(name): share
            for name, share in sparsity_of(finished).items()
            if name in self.pruned
        }
        clustered = {kernel.layer for kernel in keep_clusters(self.model).kernels}
        codes = codes_of(finished)
        clusters = {
            self._called(kernel.layer): distinct_values(
                codes.get(_outer(kernel.layer), kernel.weights)
            )
            for kernel in kernels_of(finished)[0]
            if kernel.layer in clustered
        }
        return sparsity, clusters

    def _called(self, name: str) -> str:
        """Return the name that a layer has in the model that was given."""
        outer, _, within = name.partition("/")
        called = self.renamed.get(outer, outer)
        is_rounded = isinstance(self.model.get_layer(outer), QuantizedLayer)
        return called if is_rounded or not within else f"{called}/{within}"


def quantization_aware(model: Any, settings: Quantization = Quantization()) -> Aware:
    """Return a model to be trained that rounds as the integer model made of it will.

    Dense and convolutional layers compute with rounded kernels, one grid an output channel (one a layer where weights
    were clustered, so that each cluster stays one code); what goes from layer to layer is rounded too, one grid a
    tensor. Layers that have no integer form stay in float, and are listed.

    Args:
        model: A built Functional or Sequential model; models within it are taken apart. It is not changed.
        settings: What to quantize, and how.

    Returns:
        The model, with copies of the weights, compiled with the loss and an optimizer like those of `model`. Without
        `Aware.calibrate` its ranges begin with what the first batch of training holds.

    Raises:
        ModelError: If the model is not built, is of a class of its own, or can't be copied.
        UnknownNameError: If a name in `settings.exclude` is no layer's and no class's.
    """
    functional = functional_of(model)
    if functional is None:
        raise ModelError(
            message(
                f"the model '{model.name}' is of a class of its own ('{type(model).__name__}'), whose layers can't be "
                "told from its code, or it is not built.",
                "Give a Functional or a Sequential model that begins with a keras.Input.",
                next_step="keras.Model(inputs, outputs)",
            )
        )
    copy = in_float32(copied(functional).model)
    calls = taken_apart(copy)
    rounding = Rounding(
        calls,
        weight_bits=settings.weight_bits,
        activation_bits=settings.activation_bits,
        ranges=settings.ranges,
        excluded=exclusions(settings.exclude, calls.chains),
    )
    made = rounding.model(copy, functional)
    made.name = model.name
    if model.compiled:
        optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
        made.compile(optimizer=optimizer, loss=model.loss, loss_weights=loss_weights_of(model))
    pruned = [name for name, share in sparsity_of(made).items() if PRUNED_FROM < share < 1]
    return Aware(
        made, rounding.left, tuple(rounding.quantized), tuple(pruned), dict(rounding.renamed)
    )


def codes_of(finished: Any) -> dict[str, NDArray[np.int8]]:
    """Return the codes of the kernels of a finished model (`Aware.finished`), by layer."""
    return {
        layer.name: ops.convert_to_numpy(layer.codes)
        for layer in finished.layers
        if isinstance(layer, QuantizedLayer)
    }


class _Settling(keras.callbacks.Callback):  # type: ignore[misc]
    """Leaves statistics and ranges as they are in the last epochs, or in the last steps of a single one."""

    def __init__(self, aware: Any) -> None:
        super().__init__()
        self._layers = [
            layer for layer in aware.layers if isinstance(layer, FakeQuantize | QuantizedLayer)
        ]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Settle all, once it is time."""
        epochs = self._meant("epochs")
        if epochs > 1 and epoch >= min(_settled_from(epochs), epochs - 1):
            self._settle()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Settle all, once it is time in a training of one epoch."""
        steps = self._meant("steps")
        if self._meant("epochs") == 1 < steps and batch >= min(_settled_from(steps), steps - 1):
            self._settle()

    def _meant(self, what: str) -> int:
        return int((self.params or {}).get(what) or 1)

    def _settle(self) -> None:
        for layer in self._layers:
            layer.settle()


def _settled_from(count: int) -> int:
    return math.ceil(count * (1 - _SETTLED_FOR))


def _finished_layer(layer: Any) -> Any:
    if isinstance(layer, FakeQuantize | QuantizedLayer):
        return layer.settled(layer.name)
    return type(layer).from_config(layer.get_config())


def _outer(name: str) -> str:
    """Return the name of the layer of the trained model that a kernel's layer is, or is within."""
    return name.split("/", maxsplit=1)[0]
