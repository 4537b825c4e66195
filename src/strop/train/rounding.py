"""Where an integer engine rounds: a Keras model built anew, call by call, with layers between that do it too.

It follows the engines' kernels. A layer with the batch normalization, the bias and the ReLU behind it is one kernel: what
it gives is rounded, and nothing within. A batch normalization that stands alone is a kernel that multiplies each channel
by a number. Pooling and reshaping give codes as they take them, means of codes are rounded onto the grid that they come
from, and what is joined is rounded onto one grid before. Where an engine's kernel gives its results on one grid alone
(sigmoid, softmax, tanh) that is the grid here. Functions that engines compute by several kernels are built of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from strop.graph.keras_calls import Call, Calls, Tensor
from strop.graph.names import unique
from strop.train.equivalents import (
    depthwise_and_pointwise,
    identity_on,
    mean_of_all,
    with_activation,
)
from strop.train.fusions import Excluded, first_kernels, foldings, is_separable
from strop.train.integer_forms import (
    ALONE,
    BYTE,
    FIXED,
    GATES,
    JOINS,
    LINEAR,
    MEANS,
    MIXING,
    NORMALIZATION,
    PASSING,
    QUOTIENTS,
    SEPARABLE,
    SUMS,
    WITHIN_KERNELS,
    activation_of,
    function_name,
    function_of,
    is_of_channels,
    is_within_kernels,
    reason_of,
    untreatable,
)
from strop.train.quantized_layer import QuantizedLayer
from strop.train.ranges import FakeQuantize
from strop.train.shared_values import are_shared

# Processors without VNNI add two products of codes in 16 bits, where those of large activations and weights saturate
# (OpenVINO, ONNX Runtime). Inputs, such as images, fill their codes; so their weights are given half the range.
_FIRST_BITS = 7
_NARROW = 8  # bits of an activation


class Rounding:
    """Builds a model of the layers of another, with layers between that round.

    An *edge* here is a tensor of the model that was given, a *tensor* one of the model that is built.

    Attributes:
        left: What stays in float, with the reason.
        quantized: The layers whose kernels are rounded.
        renamed: What layers of the new model were called, where that is another name.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        weight_bits: int,
        activation_bits: int,
        ranges: str,
        excluded: Excluded,
    ) -> None:
        """Set up.

        Args:
            calls: The model's; see `strop.graph.keras_calls.taken_apart`.
            weight_bits: As in `strop.train.quantization.Quantization`.
            activation_bits: The same.
            ranges: The same.
            excluded: Says why a layer is to stay in float, if it is.
        """
        self.left: dict[str, str] = {}
        self.quantized: dict[str, None] = {}
        self.renamed: dict[str, str] = {}
        self._calls, self._excluded = calls, excluded
        self._weight_bits, self._activation_bits, self._ranges = (
            weight_bits, activation_bits, ranges,
        )  # fmt: skip
        self._values: dict[Tensor, _Value] = {}
        self._parts: dict[int, list[Any]] = {}
        self._operations: dict[str, Any] = {}
        self._folded = foldings(calls.calls, excluded)
        # Wider activations are LiteRT's alone, where nothing saturates.
        self._first = first_kernels(calls) if activation_bits == _NARROW else frozenset()

    def model(self, copy: Any, original: Any) -> Any:
        """Return the new model, on the inputs of `copy`, with outputs named as those of `original`."""
        for edge, tensor in zip(self._calls.inputs, copy.inputs, strict=True):
            self._values[edge] = _Value(tensor)
            self._named(tensor._keras_history.operation)
        for call in self._calls.calls:
            # What is folded into the layer before it is there already.
            if call.results[0] not in self._values:
                self._take(call)
                self._regularize(call)
        outputs = [self._float(edge) for edge in self._calls.outputs]
        for tensor, before in zip(outputs, original.outputs, strict=True):
            self._name_end(tensor._keras_history.operation, before._keras_history.operation.name)
        structured = keras.tree.pack_sequence_as(copy._outputs_struct, outputs)
        return keras.Model(copy._inputs_struct, structured, name=original.name)

    def _take(self, call: Call) -> None:
        """Build what a call becomes."""
        reason = self._excluded(call.chain) or untreatable(call.operation)
        values = [self._values[edge] for edge in call.tensors]
        is_single = len(values) == 1
        if reason:
            self._leave(call, reason)
        elif is_single and call.kinds & (LINEAR | SEPARABLE):
            self._compute(call)
        elif all(value.is_float for value in values):
            self._leave(call, reason_of(call))
        elif call.computes_as in {*SUMS, *QUOTIENTS, *JOINS}:
            self._combine(call)
        elif not is_single:
            takes_one = call.computes_as in {*MEANS, *PASSING, *MIXING, NORMALIZATION}
            only = "it has an integer form of one tensor alone, and is given several"
            self._leave(call, only if takes_one or function_of(call) else reason_of(call))
        elif call.computes_as == NORMALIZATION and is_of_channels(call):
            self._normalize(call)
        elif call.computes_as in MEANS:
            # Narrower than what it is the mean of, so that a grid of its own is finer.
            self._set(call, _Value(self._call(call, self._integer), is_pending=True))
        elif call.computes_as in PASSING:
            self._pass(call)
        elif call.computes_as in MIXING:
            self._mix(call)
        elif function := function_of(call):
            self._activate(call, function)
        else:
            self._leave(call, reason_of(call))

    def _leave(self, call: Call, reason: str) -> None:
        """Have a call compute in float as it did; list it where that is worth a word."""
        given = [self._values[edge] for edge in call.tensors]
        # What only moves numbers about computes nothing.
        is_free = all(value.is_float for value in given) and call.computes_as in PASSING
        name = call.name
        if not is_free:
            self.left[name] = reason
        results = keras.tree.flatten(self._call(call, self._float))
        self._note(call.operation, name)
        for edge, tensor in zip(call.results, results, strict=True):
            self._values[edge] = _Value(tensor)

    def _note(self, operation: Any, name: str) -> None:
        """Keep what an operation was called, with the models around it, where it has another name now."""
        if operation.name != name:
            self.renamed.setdefault(operation.name, name)

    def _regularize(self, call: Call) -> None:
        """Have what a layer gives be regularized as it was, where the layer itself is not called any more."""
        layer = call.operation
        regularizer = getattr(layer, "activity_regularizer", None)
        if regularizer is None or self._operations.get(layer.name) is layer:
            return
        value = self._values[call.results[0]]
        same = keras.layers.Identity(
            activity_regularizer=regularizer, dtype="float32", name=f"{layer.name}_activity"
        )
        raw = self._named(same)(value.raw)
        value.rounded = raw if value.rounded is value.raw else None
        value.raw = raw

    # Layers with kernels

    def _compute(self, call: Call) -> None:
        """Have a layer compute with a rounded kernel, the normalization behind it a part of it."""
        layer = call.operation
        done, function = self._folded.get(id(layer)), activation_of(layer)
        if id(layer) not in self._parts:
            self._parts[id(layer)] = self._quantized_layers(layer, done)
            self._note(self._parts[id(layer)][-1], call.name)
        *before, last = self._parts[id(layer)]
        tensor = self._integer(call.tensors[0])
        for part in before:
            tensor = part(tensor)
            tensor = self._quantizer(tensor)(tensor)
        value = _Value(last(tensor), is_pending=True)
        self.quantized[call.name] = None
        edge = call.results[0]
        if done is not None:
            # Read by the normalization alone, which is never called.
            self._values[edge] = value
            edge = edge.readers[0].results[0]
        if not is_within_kernels(function):
            value = self._activated(value, call, edge, function_name(function), function)
        self._values[edge] = value

    def _quantized_layers(self, layer: Any, done: Any) -> list[Any]:
        """Return the layers that one with a kernel becomes, its function left out where kernels have none like it."""
        most = _FIRST_BITS if id(layer) in self._first else self._weight_bits
        if not is_within_kernels(activation_of(layer)):
            layer = with_activation(layer, keras.activations.linear)
        parts = depthwise_and_pointwise(layer) if is_separable(layer) else [layer]
        return [
            self._quantized_layer(
                part,
                done if part is parts[-1] else None,
                most_bits=most if part is parts[0] else self._weight_bits,
            )
            for part in parts
        ]

    def _quantized_layer(self, layer: Any, done: Any, *, most_bits: int) -> Any:
        made = QuantizedLayer(
            layer,
            done,
            bits=min(self._weight_bits, most_bits),
            ranges=self._ranges,
            per_channel=not are_shared(ops.convert_to_numpy(layer.kernel)),
            name=layer.name,
        )
        return self._named(made)

    def _normalize(self, call: Call) -> None:
        """Have a normalization that is folded into nothing be a kernel of its own: a factor and a summand a channel.

        Each channel has one weight, whose code is the largest there is, and a step of its own: nothing is lost.
        """
        done, (edge,) = call.operation, call.tensors
        tensor = self._integer(edge)
        *places, channels = tensor.shape[1:]
        if not places:
            tensor = self._named(keras.layers.Reshape((1, channels), name=f"{done.name}_row"))(
                tensor
            )
        if id(done) not in self._parts:
            identity = identity_on(tensor.shape, done.name)
            self._parts[id(done)] = [
                self._quantized_layer(identity, done, most_bits=self._weight_bits)
            ]
        (layer,) = self._parts[id(done)]
        value = _Value(layer(tensor), is_pending=True)
        self.quantized[call.name] = None
        if not places:
            vector = self._named(keras.layers.Reshape((channels,), name=f"{done.name}_vector"))
            value = _Value.on_grid(vector(self._rounded(value)), value.grid)
        self._set(call, value)

    # What combines tensors

    def _combine(self, call: Call) -> None:
        numbers = [operand for operand in call.operands if not isinstance(operand, Tensor)]
        if not numbers and call.computes_as in SUMS:
            self._sum(call)
        elif not numbers and call.computes_as in JOINS:
            self._join(call)
        elif [np.size(number) for number in numbers] == [1] and call.computes_as not in JOINS:
            self._sum_with_number(call, numbers[0])
        else:
            self._leave(call, reason_of(call))

    def _sum(self, call: Call) -> None:
        """Have a sum or a product compute on integers, two operands at a time."""
        if len(call.tensors) == 2:
            self._set(call, _Value(self._call(call, self._integer), is_pending=True))
            return
        first, *others = map(self._integer, call.tensors)
        for other in others:
            if first is not self._integer(call.tensors[0]):
                first = self._quantizer(first)(first)
            operation = self._named(
                getattr(keras.layers, call.computes_as)(name=call.operation.name)
            )
            first = operation([first, other])
        self._set(call, _Value(first, is_pending=True))

    def _sum_with_number(self, call: Call, number: Any) -> None:
        """Have a sum, a product or a quotient with one number compute on integers."""
        if call.computes_as not in QUOTIENTS:
            self._set(call, _Value(self._call(call, self._integer), is_pending=True))
        elif isinstance(call.operands[0], Tensor):
            # No engine divides codes.
            product = ops.multiply(self._integer(call.tensors[0]), 1.0 / float(np.squeeze(number)))
            self._set(call, _Value(self._new(product), is_pending=True))
        else:
            self._leave(call, reason_of(call))

    def _join(self, call: Call) -> None:
        """Round all that is joined onto one grid, which what comes of it has too."""
        edges = list(dict.fromkeys(call.tensors))
        # What somebody else reads is rounded for them first; engines then bring its codes onto the other grid.
        tensors = [
            self._values[edge].raw
            if self._values[edge].is_float or edge.sole_reader
            else self._integer(edge)
            for edge in edges
        ]
        quantizer = self._made_quantizer(f"{call.operation.name}_range")
        rounded = dict(zip(edges, quantizer(tensors), strict=True))
        self._set(call, _Value.on_grid(self._call(call, rounded.__getitem__), quantizer))

    def _pass(self, call: Call) -> None:
        """Give codes on."""
        tensor = self._call(call, self._integer)
        self._set(call, _Value.on_grid(tensor, self._grid_of(call)))

    def _mix(self, call: Call) -> None:
        """Round means of codes onto the grid that these are on, which is what engines give."""
        grid = self._grid_of(call)
        if whole := mean_of_all(call.operation, self._integer(call.tensors[0]).shape):
            # Such a mean engines give on a grid of its own, which is finer.
            mean = self._named(whole)(self._integer(call.tensors[0]))
            self._set(call, _Value(mean, is_pending=True))
            return
        tensor = grid(self._call(call, self._integer), follows=False)
        self._set(call, _Value.on_grid(tensor, grid))

    def _grid_of(self, call: Call) -> FakeQuantize:
        """Return what rounds the one tensor that a call reads."""
        (edge,) = call.tensors
        self._integer(edge)
        grid = self._values[edge].grid
        assert grid is not None  # noqa: S101 - it was just rounded
        return grid

    # Functions

    def _activate(self, call: Call, function: str) -> None:
        """Have a function compute within the kernel before it, or on integers by itself."""
        (edge,) = call.tensors
        if not edge.sole_reader:
            self._integer(edge)
        value = self._activated(self._values[edge], call, call.results[0], function, None)
        self._set(call, value)

    def _activated(
        self, value: _Value, call: Call, result: Tensor, name: str, function: Any
    ) -> _Value:
        """Return what a function makes of a value.

        Args:
            value: What it is given.
            call: The call that it is, or is a part of.
            result: The edge that the new value is for.
            name: The function's.
            function: The function; None for the call's operation.
        """

        def called(tensor: Any) -> Any:
            if function is None:
                return self._call(call, lambda _: tensor)
            return self._function(function, f"{call.operation.name}_{name}", tensor)

        if name == "linear":
            return value
        if name in WITHIN_KERNELS and value.is_pending:
            return _Value(called(value.raw), is_pending=True)
        tensor = self._rounded(value)
        if name in GATES:
            return self._gated(tensor, call, name)
        if name == "hard_sigmoid":
            return self._hard_sigmoid(tensor, call.operation.name)
        if name in WITHIN_KERNELS | self._with_kernels:
            return _Value(called(tensor), is_pending=True)
        if name not in FIXED:
            self.left[call.name] = f"its function '{name}' has no integer form here"
            return _Value(called(tensor))
        # A loss wants more of a probability than its nearest 256th; engines that compute it in integers round it by
        # themselves.
        if result.is_output:
            return _Value(called(tensor))
        return self._on_known_grid(called(tensor), name)

    @property
    def _with_kernels(self) -> set[str]:
        """The functions that engines have integer kernels for, at this width."""
        return ALONE if self._activation_bits == BYTE else {"exponential", "leaky_relu"}

    def _gated(self, tensor: Any, call: Call, name: str) -> _Value:
        """Return ``x·g(x)``, as engines compute it; the last function in g has a grid that is known."""
        *first, last = GATES[name]
        layer, gate = call.operation.name, tensor
        for function in first:
            self.left[call.name] = (
                f"'{function}' in its function '{name}' has no integer form here"
            )
            gate = self._function(function, f"{layer}_{function}", gate)
        gate = self._on_known_grid(self._function(last, f"{layer}_gate", gate), last).raw
        product = self._named(keras.layers.Multiply(name=f"{layer}_gated"))([tensor, gate])
        return _Value(product, is_pending=True)

    def _hard_sigmoid(self, tensor: Any, name: str) -> _Value:
        """Return ``relu6(x + 3) / 6``, by kernels that engines have."""
        shifted = self._new(ops.add(tensor, 3.0))
        cut = self._function("relu6", f"{name}_cut", shifted)
        cut = self._quantizer(cut)(cut)
        return _Value(self._new(ops.multiply(cut, 1 / 6)), is_pending=True)

    def _function(self, function: Any, name: str, tensor: Any) -> Any:
        return self._named(keras.layers.Activation(function, name=name))(tensor)

    # What is read, and what it is called

    def _integer(self, edge: Tensor) -> Any:
        """Return a tensor on a grid."""
        return self._rounded(self._values[edge])

    def _float(self, edge: Tensor) -> Any:
        """Return a tensor as it is; that of an integer kernel is on a grid."""
        value = self._values[edge]
        return self._rounded(value) if value.is_pending else value.raw

    def _rounded(self, value: _Value) -> Any:
        if value.rounded is None:
            value.grid = self._quantizer(value.raw)
            value.rounded = value.grid(value.raw)
            if value.is_pending:
                value.raw, value.is_pending = value.rounded, False
        return value.rounded

    def _set(self, call: Call, value: _Value) -> None:
        self._values[call.results[0]] = value

    def _call(self, call: Call, tensor_of: Callable[[Tensor], Any]) -> Any:
        self._named(call.operation)
        return call.again(tensor_of)

    def _new(self, tensor: Any) -> Any:
        """Return what an operation gave that had no name of its own."""
        self._named(tensor._keras_history.operation)
        return tensor

    def _quantizer(self, tensor: Any) -> FakeQuantize:
        return self._made_quantizer(f"{tensor._keras_history.operation.name}_range")

    def _on_known_grid(self, tensor: Any, function: str) -> _Value:
        low, high = FIXED[function]
        if self._activation_bits > BYTE:
            low = -1.0  # the only grids of so many bits lie evenly about zero
        high -= (high - low) / 2**self._activation_bits
        name = f"{tensor._keras_history.operation.name}_range"
        grid = self._made_quantizer(name, fixed=(low, high))
        return _Value.on_grid(grid(tensor), grid)

    def _made_quantizer(
        self, name: str, *, fixed: tuple[float, float] | None = None
    ) -> FakeQuantize:
        made = self._named(
            FakeQuantize(bits=self._activation_bits, ranges=self._ranges, fixed=fixed, name=name)
        )
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
            self.renamed[self._named(other).name] = self.renamed.pop(name, name)
        del self._operations[operation.name]
        operation.name = name
        self._operations[name] = operation


@dataclass
class _Value:
    """A tensor of the new model.

    Attributes:
        raw: The tensor as it was computed.
        is_pending: Whether it comes of an integer kernel, and is to be rounded before anyone reads it but what is
            done within that kernel.
        rounded: The tensor on a grid, once it is there; `raw` itself where that is the only one left.
        grid: What rounds it, once it is rounded.
    """

    raw: Any
    is_pending: bool = False
    rounded: Any = None
    grid: FakeQuantize | None = None

    @classmethod
    def on_grid(cls, tensor: Any, grid: FakeQuantize | None) -> _Value:
        """Return the value of a tensor that is on a grid already."""
        return cls(tensor, rounded=tensor, grid=grid)

    @property
    def is_float(self) -> bool:
        """Whether it comes of what computes in float."""
        return not self.is_pending and self.rounded is not self.raw
