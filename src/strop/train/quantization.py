"""Quantization-aware training: a Keras model that computes as if in integers while it is taught, and integers after.

`quantization_aware` makes, of a model, another that rounds its kernels and the tensors between its layers as an
integer engine does; it is trained like any Keras model. What it gives in the end is a Keras model again, whose
operations converters take for integer ones.

Where a tensor is rounded follows the engines' kernels: behind a layer with batch normalization and ReLU and not within,
since they are one kernel; not behind pooling and reshaping, which give codes as they take them; onto one grid before
tensors are joined; onto a grid that is known before where the engine's kernel has no other (sigmoid, softmax, tanh).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import keras
import numpy as np
from keras import ops

from strop.core.errors import ModelError, ParameterError, message
from strop.core.samples import Samples
from strop.core.signature import Signature
from strop.graph.keras_models import arranged
from strop.graph.names import unique
from strop.train.pruning import Exclusion, exclusions
from strop.train.ranges import LEARNED, MOVING_AVERAGE, FakeQuantize, QuantizedLayer

WEIGHT_BITS, ACTIVATION_BITS, RANGES = (4, 8), (8, 16), (MOVING_AVERAGE, LEARNED)
_SETTLED_FOR = 0.3  # of the epochs, at their end
_SEEN_AT_ONCE = 64
_MOST_CLUSTERS = 64


@dataclass(frozen=True)
class Quantization:
    """What to quantize, and how.

    Attributes:
        weight_bits: Width of a weight's code, 4 or 8.
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
    """

    model: Any
    left_in_float: Mapping[str, str]
    quantized: tuple[str, ...]

    @property
    def callbacks(self) -> list[Any]:
        """What to give to `fit`: towards the end, statistics and ranges are left as they are then.

        So the last epochs teach the very function that is run afterwards (section 3.2.2 of Krishnamoorthi, *Quantizing
        deep convolutional networks for efficient inference: A whitepaper*, 2018, arXiv:1806.08342).
        """
        return [_Settling(self.model)]

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
        made = keras.models.clone_model(_uncompiled(self.model), clone_function=_finished_layer)
        for layer in made.layers:
            if not isinstance(layer, FakeQuantize | QuantizedLayer):
                layer.set_weights(self.model.get_layer(layer.name).get_weights())
        return made


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
    functional = _functional_of(model)
    if functional is None:
        raise ModelError(
            message(
                f"the model '{model.name}' is of a class of its own ('{type(model).__name__}'), whose layers can't be "
                "told from its code, or it is not built.",
                "Give a Functional or a Sequential model that begins with a keras.Input.",
                next_step="keras.Model(inputs, outputs)",
            )
        )
    copy = _copied(functional)
    edges, steps = _steps_of(copy)
    builder = _Builder(steps, edges, settings, exclusions(settings.exclude, _chains_of(steps)))
    made = builder.model(copy, functional)
    made.name = model.name
    if model.compiled:
        optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
        made.compile(optimizer=optimizer, loss=model.loss)
    return Aware(made, builder.left, tuple(builder.quantized))


class _Settling(keras.callbacks.Callback):  # type: ignore[misc]
    """Leaves statistics and ranges as they are in the last epochs."""

    def __init__(self, aware: Any) -> None:
        super().__init__()
        self._layers = [
            layer for layer in aware.layers if isinstance(layer, FakeQuantize | QuantizedLayer)
        ]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Settle all, once it is time."""
        epochs = (self.params or {}).get("epochs") or 1
        if epoch >= max(math.ceil(epochs * (1 - _SETTLED_FOR)), 1):
            for layer in self._layers:
                layer.settle()


def _finished_layer(layer: Any) -> Any:
    if isinstance(layer, FakeQuantize | QuantizedLayer):
        return layer.settled(layer.name)
    return type(layer).from_config(layer.get_config())


_Chain = tuple[Any, ...]


@dataclass(eq=False)
class _Edge:
    """A tensor of the model, through all the nested models that it goes in and out of.

    Attributes:
        rank: How many axes it has.
        readers: The steps that read it, once for each time.
        is_output: Whether the model gives it.
    """

    rank: int
    readers: list[_Step] = field(default_factory=list)
    is_output: bool = False

    @property
    def sole_reader(self) -> _Step | None:
        """The step that reads it where nobody else does."""
        return self.readers[0] if len(self.readers) == 1 and not self.is_output else None


@dataclass(eq=False)
class _Step:
    """One call of a layer or an operation.

    Attributes:
        chain: The nested models around it, from the outermost, and the layer or operation.
        arguments: Positional ones and those by name, with edges where tensors go.
        results: The tensors it gives.
    """

    chain: _Chain
    arguments: tuple[Any, dict[str, Any]]
    results: list[_Edge]

    @property
    def operation(self) -> Any:
        """The layer or operation."""
        return self.chain[-1]

    @property
    def edges(self) -> list[_Edge]:
        """The tensors that it reads."""
        return [leaf for leaf in keras.tree.flatten(self.arguments) if isinstance(leaf, _Edge)]

    @property
    def kind(self) -> str:
        """The name of the class that it is of, or derived from, if that is Keras' own and calls as that does."""
        kinds = [k for k in type(self.operation).__mro__ if k.__module__.startswith("keras.")]
        calls = type(self.operation).call
        return kinds[0].__name__ if kinds and calls.__module__.startswith("keras.") else ""

    @property
    def kinds(self) -> set[str]:
        """The names of all Keras' classes that it is derived from; empty where it calls otherwise."""
        return {k.__name__ for k in type(self.operation).__mro__} if self.kind else set()

    @property
    def takes_tensors_alone(self) -> bool:
        """Whether there are no numbers among its operands."""
        return all(isinstance(leaf, _Edge) for leaf in keras.tree.flatten(self.arguments[0]))

    @property
    def name(self) -> str:
        """Its name after those around it."""
        return "/".join(part.name for part in self.chain)

    def call(self, tensor_of: Callable[[_Edge], Any]) -> Any:
        """Return what the operation gives for other tensors."""
        args, kwargs = keras.tree.map_structure(
            lambda leaf: tensor_of(leaf) if isinstance(leaf, _Edge) else leaf, self.arguments
        )
        return self.operation(*args, **kwargs)


def _functional_of(model: Any) -> Any:
    """Return the graph of layers that a model is; None where it is none, or calls otherwise."""
    is_plain = getattr(type(model).call, "__module__", "").startswith("keras.")
    found = getattr(model, "_functional", None) or model
    return found if is_plain and hasattr(found, "_nodes_by_depth") else None


def _copied(functional: Any) -> Any:
    """Return a model of other layers and the same weights, all in float32.

    Raises:
        ModelError: If one of its layers can't be made anew.
    """
    plain = _uncompiled(functional)
    try:
        copy = keras.models.clone_model(plain, recursive=True)
        copy.set_weights(plain.get_weights())
    # Layers of other people's classes are made anew here, by their own code.
    except Exception as error:
        raise ModelError(
            message(
                f"the model '{functional.name}' can't be copied: {str(error).strip().splitlines()[0]}",
                "Each layer of a class of your own needs a get_config that its constructor takes.",
                next_step="keras.models.clone_model(model)",
            )
        ) from error
    for layer in copy._flatten_layers(include_self=False):
        policy = layer.dtype_policy
        if policy.variable_dtype == "float32" != policy.compute_dtype:
            layer.dtype_policy = "float32"
    return copy


def _uncompiled(functional: Any) -> Any:
    """Return a model of the same layers without a loss, which cloning would try to clone."""
    return keras.Model(functional._inputs_struct, functional._outputs_struct, name=functional.name)


def _steps_of(functional: Any) -> tuple[dict[int, _Edge], list[_Step]]:
    """Return the model's input and output edges, by the id of their tensors, and its calls in order."""
    inputs = [_Edge(len(tensor.shape)) for tensor in functional.inputs]
    steps: list[_Step] = []
    outputs = _flattened(functional, inputs, (), steps)
    for step in steps:
        for edge in step.edges:
            edge.readers.append(step)
        # The same layers are called anew, and are not to remember two models.
        step.operation._inbound_nodes.clear()
        step.operation._outbound_nodes.clear()
    for edge in outputs:
        edge.is_output = True
    for tensor in functional.inputs:
        tensor._keras_history.operation._outbound_nodes.clear()
    ends = zip([*functional.inputs, *functional.outputs], [*inputs, *outputs], strict=True)
    return {id(tensor): edge for tensor, edge in ends}, steps


def _flattened(
    functional: Any, given: Sequence[_Edge], around: _Chain, steps: list[_Step]
) -> list[_Edge]:
    """Add the calls of a model to `steps`, those of models within it too; return the edges it gives."""
    edges = {id(tensor): edge for tensor, edge in zip(functional.inputs, given, strict=True)}
    for node in _nodes_of(functional):
        arguments = keras.tree.map_structure(
            lambda leaf: edges.get(id(leaf), leaf), (node.arguments.args, node.arguments.kwargs)
        )
        chain = (*around, node.operation)
        inner = _functional_of(node.operation) if hasattr(node.operation, "layers") else None
        taken = [e for e in keras.tree.flatten(arguments[0]) if isinstance(e, _Edge)]
        if inner is not None and len(taken) == len(inner.inputs):
            results = _flattened(inner, taken, chain, steps)
        else:
            results = [_Edge(len(tensor.shape)) for tensor in node.outputs]
            steps.append(_Step(chain, arguments, results))
        edges.update(zip(map(id, node.outputs), results, strict=True))
    return [edges[id(tensor)] for tensor in functional.outputs]


def _nodes_of(functional: Any) -> Iterator[Any]:
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        yield from (node for node in functional._nodes_by_depth[depth] if not node.is_input)


def _chains_of(steps: Sequence[_Step]) -> list[_Chain]:
    """Return all layers, those around others too, with what is around them."""
    found = {
        step.chain[:length]: None for step in steps for length in range(1, len(step.chain) + 1)
    }
    return list(found)


_LINEAR = {"Dense", "BaseConv", "BaseConvTranspose", "BaseDepthwiseConv"}
_SEPARABLE = {"SeparableConv1D", "SeparableConv2D"}
_SUMS = {
    "Add": keras.layers.Add, "Multiply": keras.layers.Multiply, "Subtract": keras.layers.Subtract,
}  # fmt: skip
_JOINS = {"Concatenate", "Maximum", "Minimum"}
_AVERAGES = {"GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D"}
# What gives codes as it takes them, or does nothing in inference.
_PASSING = {
    "ActivityRegularization", "AlphaDropout", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "Cropping1D",
    "Cropping2D", "Cropping3D", "Dropout", "ExpandDims", "Flatten", "GaussianDropout", "GaussianNoise", "GetItem",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D", "Identity", "MaxPooling1D", "MaxPooling2D",
    "MaxPooling3D", "Permute", "RepeatVector", "Reshape", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D",
    "Squeeze", "Transpose", "UpSampling1D", "UpSampling2D", "UpSampling3D", "ZeroPadding1D", "ZeroPadding2D",
    "ZeroPadding3D",
}  # fmt: skip
# Functions that are part of the kernel before them, and functions that have integer kernels of their own.
_WITHIN_KERNELS = {"relu", "relu6"}
_ALONE = {"gelu", "hard_silu", "leaky_relu", "prelu"}
# Functions whose results integer kernels give on one grid alone: the ends of its range, the upper one less a step.
_FIXED = {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0)}
# Layers and operations that are functions.
_FUNCTIONS = {
    "ELU": "elu", "Elu": "elu", "Gelu": "gelu", "HardSilu": "hard_silu", "LeakyReLU": "leaky_relu",
    "LeakyRelu": "leaky_relu", "PReLU": "prelu", "Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Silu": "silu",
    "Softmax": "softmax", "Tanh": "tanh",
}  # fmt: skip
_RECURRENT = (
    "recurrent layers stay in float: what rounding does to a state adds up from step to step"
)
_STATISTICS = "its mean and variance need more than eight bits"
_ATTENTION = "the products within attention stay in float"
_REASONS = {
    "Attention": _ATTENTION, "AdditiveAttention": _ATTENTION, "GroupedQueryAttention": _ATTENTION,
    "MultiHeadAttention": _ATTENTION, "Bidirectional": _RECURRENT, "RNN": _RECURRENT,
    "GroupNormalization": _STATISTICS, "LayerNormalization": _STATISTICS, "RMSNormalization": _STATISTICS,
    "BatchNormalization": "it stands behind no layer that it could be folded into",
    "Embedding": "a table that rows are looked up in: nothing is computed with it",
}  # fmt: skip


@dataclass
class _Value:
    """A tensor of the new model.

    Attributes:
        raw: The tensor as it was computed.
        is_pending: Whether it comes of an integer kernel, and is to be rounded before anyone reads it but what is
            done within that kernel.
        rounded: The tensor on a grid, once it is there; `raw` itself where that is the only one left.
    """

    raw: Any
    is_pending: bool = False
    rounded: Any = None

    @classmethod
    def on_grid(cls, tensor: Any) -> _Value:
        """Return the value of a tensor that is on a grid already."""
        return cls(tensor, rounded=tensor)

    @property
    def is_float(self) -> bool:
        """Whether it comes of what computes in float."""
        return not self.is_pending and self.rounded is not self.raw


class _Builder:
    """Makes the new model, a step at a time.

    Attributes:
        left: What stays in float, with the reason.
        quantized: The layers whose kernels are rounded.
    """

    def __init__(
        self,
        steps: Sequence[_Step],
        ends: Mapping[int, _Edge],
        settings: Quantization,
        excluded: Callable[[_Chain], str | None],
    ) -> None:
        self.left: dict[str, str] = {}
        self.quantized: dict[str, None] = {}
        self._steps, self._ends, self._settings, self._excluded = steps, ends, settings, excluded
        self._values: dict[_Edge, _Value] = {}
        self._parts: dict[int, list[Any]] = {}
        self._operations: dict[str, Any] = {}
        self._folded = _foldings(steps, excluded)

    def model(self, copy: Any, original: Any) -> Any:
        """Return the new model, on the inputs of `copy`, with outputs named as those of `original`."""
        for tensor in copy.inputs:
            self._values[self._ends[id(tensor)]] = _Value(tensor)
            self._named(tensor._keras_history.operation)
        for step in self._steps:
            # What is folded into the layer before it is there already.
            if step.results[0] not in self._values:
                self._take(step)
        outputs = [self._float(self._ends[id(tensor)]) for tensor in copy.outputs]
        for tensor, before in zip(outputs, original.outputs, strict=True):
            self._name_end(tensor._keras_history.operation, before._keras_history.operation.name)
        structured = keras.tree.pack_sequence_as(copy._outputs_struct, outputs)
        return keras.Model(copy._inputs_struct, structured, name=original.name)

    def _take(self, step: _Step) -> None:
        reason = self._excluded(step.chain) or _untreatable(step.operation)
        if reason:
            self._leave(step, reason)
        elif step.kinds & (_LINEAR | _SEPARABLE):
            self._compute(step)
        elif all(self._values[edge].is_float for edge in step.edges):
            self._leave(step, _reason(step))
        elif step.kind in _SUMS and step.takes_tensors_alone:
            self._sum(step)
        elif step.kind in _JOINS and step.takes_tensors_alone:
            self._join(step)
        elif step.kind in _AVERAGES:
            # Narrower than what it is the mean of, so that a grid of its own is finer.
            self._set(step, _Value(self._call(step, self._integer), is_pending=True))
        elif step.kind in _PASSING:
            self._set(step, _Value.on_grid(self._call(step, self._integer)))
        elif function := _function_of(step):
            self._activate(step, function)
        else:
            self._leave(step, _reason(step))

    def _leave(self, step: _Step, reason: str) -> None:
        """Have a step compute in float as it did; list it where that is worth a word."""
        given = [self._values[edge] for edge in step.edges]
        if getattr(step.operation, "weights", ()) or not all(value.is_float for value in given):
            self.left[step.name] = reason
        results = keras.tree.flatten(self._call(step, self._float))
        for edge, tensor in zip(step.results, results, strict=True):
            self._values[edge] = _Value(tensor)

    def _compute(self, step: _Step) -> None:
        """Have a layer compute with a rounded kernel, the normalization behind it a part of it."""
        layer = step.operation
        done, function = self._folded.get(id(layer)), _activation_of(layer)
        if id(layer) not in self._parts:
            self._parts[id(layer)] = self._quantized_layers(layer, done)
        *before, last = self._parts[id(layer)]
        tensor = self._integer(step.edges[0])
        for part in before:
            tensor = part(tensor)
            tensor = self._quantizer(tensor)(tensor)
        value = _Value(last(tensor), is_pending=True)
        self.quantized[step.name] = None
        edge = step.results[0]
        if done is not None:
            # Read by the normalization alone, which is never called.
            self._values[edge] = value
            edge = edge.readers[0].results[0]
        if not _is_within(function):
            value = self._activated(value, step, edge, _name_of(function), function)
        self._values[edge] = value

    def _quantized_layers(self, layer: Any, done: Any) -> list[Any]:
        """Return the layers that one with a kernel becomes, its function left out where kernels have none like it."""
        if not _is_within(_activation_of(layer)):
            layer = _with_activation(layer, keras.activations.linear)
        parts = _separated(layer) if _is_separable(layer) else [layer]
        return [
            self._named(
                QuantizedLayer(
                    part,
                    done if part is parts[-1] else None,
                    bits=self._settings.weight_bits,
                    ranges=self._settings.ranges,
                    per_channel=not _is_clustered(part),
                    name=part.name,
                )
            )
            for part in parts
        ]

    def _sum(self, step: _Step) -> None:
        """Have a sum or a product compute on integers, two operands at a time."""
        if len(step.edges) == 2:
            self._set(step, _Value(self._call(step, self._integer), is_pending=True))
            return
        first, *others = map(self._integer, step.edges)
        for other in others:
            if first is not self._integer(step.edges[0]):
                first = self._quantizer(first)(first)
            operation = self._named(_SUMS[step.kind](name=step.operation.name))
            first = operation([first, other])
        self._set(step, _Value(first, is_pending=True))

    def _join(self, step: _Step) -> None:
        """Round all that is joined onto one grid, which what comes of it has too."""
        edges = list(dict.fromkeys(step.edges))
        # What somebody else reads is rounded for them first; engines then bring its codes onto the other grid.
        tensors = [
            self._values[edge].raw
            if self._values[edge].is_float or edge.sole_reader
            else self._integer(edge)
            for edge in edges
        ]
        quantizer = self._made_quantizer(f"{step.operation.name}_range")
        rounded = dict(zip(edges, quantizer(tensors), strict=True))
        self._set(step, _Value.on_grid(self._call(step, rounded.__getitem__)))

    def _activate(self, step: _Step, function: str) -> None:
        """Have a function compute within the kernel before it, or on integers by itself."""
        (edge,) = step.edges[:1]
        if not edge.sole_reader:
            self._integer(edge)
        value = self._activated(self._values[edge], step, step.results[0], function, None)
        self._set(step, value)

    def _activated(
        self, value: _Value, step: _Step, result: _Edge, name: str, function: Any
    ) -> _Value:
        """Return what a function makes of a value.

        Args:
            value: What it is given.
            step: The call that it is, or is a part of.
            result: The edge that the new value is for.
            name: The function's.
            function: The function; None for the step's operation.
        """

        def called(tensor: Any) -> Any:
            if function is None:
                return self._call(step, lambda _: tensor)
            label = f"{step.operation.name}_{name}"
            return self._named(keras.layers.Activation(function, name=label))(tensor)

        if name == "linear":
            return value
        if name in _WITHIN_KERNELS and value.is_pending:
            return _Value(called(value.raw), is_pending=True)
        tensor = self._rounded(value)
        if name == "silu":
            return _Value(self._gated(tensor, step.operation.name), is_pending=True)
        if name in _WITHIN_KERNELS | _ALONE:
            return _Value(called(tensor), is_pending=True)
        if name not in _FIXED:
            self.left[step.name] = f"its function '{name}' has no integer form here"
            return _Value(called(tensor))
        # A loss wants more of a probability than its nearest 256th; engines that compute it in integers round it by
        # themselves.
        if result.is_output:
            return _Value(called(tensor))
        return _Value.on_grid(self._on_known_grid(called(tensor), name))

    def _gated(self, tensor: Any, name: str) -> Any:
        """Return ``x·sigmoid(x)``, as engines compute it, whose sigmoid has a grid that is known."""
        gate = self._named(keras.layers.Activation("sigmoid", name=f"{name}_gate"))(tensor)
        gate = self._on_known_grid(gate, "sigmoid")
        return self._named(keras.layers.Multiply(name=f"{name}_gated"))([tensor, gate])

    # What is read, and what it is called

    def _integer(self, edge: _Edge) -> Any:
        """Return a tensor on a grid."""
        return self._rounded(self._values[edge])

    def _float(self, edge: _Edge) -> Any:
        """Return a tensor as it is; that of an integer kernel is on a grid."""
        value = self._values[edge]
        return self._rounded(value) if value.is_pending else value.raw

    def _rounded(self, value: _Value) -> Any:
        if value.rounded is None:
            value.rounded = self._quantizer(value.raw)(value.raw)
            if value.is_pending:
                value.raw, value.is_pending = value.rounded, False
        return value.rounded

    def _set(self, step: _Step, value: _Value) -> None:
        self._values[step.results[0]] = value

    def _call(self, step: _Step, tensor_of: Callable[[_Edge], Any]) -> Any:
        self._named(step.operation)
        return step.call(tensor_of)

    def _quantizer(self, tensor: Any) -> FakeQuantize:
        return self._made_quantizer(f"{tensor._keras_history.operation.name}_range")

    def _on_known_grid(self, tensor: Any, function: str) -> Any:
        low, high = _FIXED[function]
        high -= (high - low) / 2**self._settings.activation_bits
        name = f"{tensor._keras_history.operation.name}_range"
        return self._made_quantizer(name, fixed=(low, high))(tensor)

    def _made_quantizer(
        self, name: str, *, fixed: tuple[float, float] | None = None
    ) -> FakeQuantize:
        bits, ranges = self._settings.activation_bits, self._settings.ranges
        made = self._named(FakeQuantize(bits=bits, ranges=ranges, fixed=fixed, name=name))
        assert isinstance(made, FakeQuantize)  # noqa: S101 - it is what was given
        return made

    def _named(self, operation: Any) -> Any:
        """Return an operation, under another name where one has its own: layers of nested models may share it."""
        if self._operations.get(operation.name) is not operation:
            *_, operation.name = unique([*self._operations, operation.name])
            self._operations[operation.name] = operation
        return operation

    def _name_end(self, operation: Any, name: str) -> None:
        """Name what gives an output as what gave it was named: losses and users go by that."""
        if operation.name == name:
            return
        if other := self._operations.pop(name, None):
            other.name = f"{name}_unrounded"
            self._named(other)
        del self._operations[operation.name]
        operation.name = name
        self._operations[name] = operation


def _foldings(steps: Sequence[_Step], excluded: Callable[[_Chain], str | None]) -> dict[int, Any]:
    """Return the batch normalization that a layer has behind it wherever it stands, by the id of the layer."""
    behind: dict[int, list[Any]] = {}
    for step in steps:
        if step.kinds & (_LINEAR | _SEPARABLE):
            done = _normalization_behind(step, excluded)
            behind.setdefault(id(step.operation), []).append(done)
    found = {}
    for layer, normalizations in behind.items():
        done = normalizations[0]
        often = sum(step.operation is done for step in steps)
        if (
            done
            and all(other is done for other in normalizations)
            and often == len(normalizations)
        ):
            found[layer] = done
    return found


def _normalization_behind(step: _Step, excluded: Callable[[_Chain], str | None]) -> Any:
    """Return the batch normalization that alone reads what a layer gives, over its channels; None for none."""
    layer, (result,) = step.operation, step.results
    reader = result.sole_reader
    if reader is None or reader.kind != "BatchNormalization" or len(reader.edges) != 1:
        return None
    if excluded(step.chain) or excluded(reader.chain) or _untreatable(layer):
        return None
    done = reader.operation
    is_first = getattr(layer, "data_format", "") == "channels_first"
    channels = 1 if is_first else result.rank - 1
    is_plain = _name_of(_activation_of(layer)) == "linear" and not done.renorm
    return done if is_plain and done.axis % result.rank == channels else None


def _untreatable(operation: Any) -> str | None:
    if getattr(operation, "quantization_mode", None) or getattr(operation, "lora_enabled", False):
        return "its kernel is quantized already, or adapted by LoRA"
    return None


def _reason(step: _Step) -> str:
    kinds = [kind.__name__ for kind in type(step.operation).__mro__]
    known = next((_REASONS[kind] for kind in kinds if kind in _REASONS), None)
    return known or f"there is no integer form of '{kinds[0]}' here"


def _function_of(step: _Step) -> str:
    """Return the name of the function that a layer or an operation is; empty where it is none."""
    operation = step.operation
    if step.kind == "Activation":
        return _name_of(operation.activation)
    if step.kind != "ReLU":
        return _FUNCTIONS.get(step.kind, "")
    if operation.threshold or operation.max_value not in (None, 6):
        return "relu with a threshold or a largest value"
    if operation.negative_slope:
        return "leaky_relu" if operation.max_value is None else "leaky relu with a largest value"
    return "relu" if operation.max_value is None else "relu6"


def _activation_of(layer: Any) -> Any:
    return getattr(layer, "activation", None)


def _name_of(function: Any) -> str:
    """Return the name of one of Keras' functions; another's is no name for what it computes."""
    if function is None:
        return "linear"
    name = getattr(function, "__name__", type(function).__name__)
    return name if (function.__module__ or "").startswith("keras.") else f"{name} of your own"


def _is_within(function: Any) -> bool:
    return _name_of(function) in ("linear", *_WITHIN_KERNELS)


def _is_separable(layer: Any) -> bool:
    return any(kind.__name__ in _SEPARABLE for kind in type(layer).__mro__)


def _with_activation(layer: Any, function: Any) -> Any:
    """Return a layer with other weights of the same values, and another function."""
    config = {**layer.get_config(), "activation": keras.activations.serialize(function)}
    made = type(layer).from_config(config)
    made.build(*layer._build_shapes_dict.values())
    made.set_weights(layer.get_weights())
    return made


def _separated(layer: Any) -> list[Any]:
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
        name=layer.name,
        **shared,
    )
    pointwise.build(depthwise.compute_output_shape(shape))
    pointwise.kernel.assign(layer.pointwise_kernel)
    if layer.use_bias:
        pointwise.bias.assign(layer.bias)
    return [depthwise, pointwise]


def _is_clustered(layer: Any) -> bool:
    """Say whether a layer's weights share a few values."""
    weights = ops.convert_to_numpy(layer.kernel)
    others = weights[weights != 0]
    values = np.unique(others).size
    return bool(values <= _MOST_CLUSTERS and 2 * values <= others.size)
