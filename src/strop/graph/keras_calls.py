"""A live Keras model as the calls that it consists of, those of models within it among them.

For who builds another model of the same layers: `Call.again` makes a call on other tensors. A layer that is called twice
is one layer in two calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from strop.graph.keras_layers import Chain, layers_of, name_of, prefixes


@dataclass(eq=False)
class Tensor:
    """A tensor of a model, through all the nested models that it goes in and out of.

    Attributes:
        shape: Its sizes, the batch first; None where a size is free.
        maker: The call that gives it; None for an input of the model.
        readers: The calls that read it, once for each time.
        is_output: Whether the model gives it.
    """

    shape: tuple[int | None, ...]
    maker: Call | None = None
    readers: list[Call] = field(default_factory=list)
    is_output: bool = False

    @property
    def sole_reader(self) -> Call | None:
        """The call that reads it where nobody else does."""
        return self.readers[0] if len(self.readers) == 1 and not self.is_output else None


@dataclass(eq=False)
class Call:
    """One call of a layer or an operation.

    Attributes:
        chain: The nested models around it, from the outermost, and the layer or operation.
        arguments: Positional ones and those by name, with a `Tensor` where tensors go.
        results: The tensors it gives.
    """

    chain: Chain
    arguments: tuple[Any, dict[str, Any]]
    results: list[Tensor]

    @property
    def operation(self) -> Any:
        """The layer or operation."""
        return self.chain[-1]

    @property
    def name(self) -> str:
        """Its name after those around it."""
        return name_of(self.chain)

    @property
    def kind(self) -> str:
        """The name of its class where that is Keras' own, else nothing."""
        own = type(self.operation)
        return own.__name__ if own.__module__.startswith("keras.") else ""

    @property
    def computes_as(self) -> str:
        """The name of the class that it is of, or derived from, if that is Keras' own and computes as that does."""
        kinds = [k for k in type(self.operation).__mro__ if k.__module__.startswith("keras.")]
        return kinds[0].__name__ if kinds and _computes_as_keras(self.operation) else ""

    @property
    def kinds(self) -> set[str]:
        """The names of all Keras' classes that it is derived from; empty where it computes otherwise."""
        return {k.__name__ for k in type(self.operation).__mro__} if self.computes_as else set()

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that it reads."""
        return [leaf for leaf in keras.tree.flatten(self.arguments) if isinstance(leaf, Tensor)]

    @property
    def operands(self) -> list[Any]:
        """All its positional arguments, numbers among them."""
        return list(keras.tree.flatten(self.arguments[0]))

    @property
    def sole_result(self) -> Tensor | None:
        """The tensor that it gives, where it is but one."""
        return self.results[0] if len(self.results) == 1 else None

    @property
    def has_weights(self) -> bool:
        """Whether it is of a layer that has any."""
        return bool(getattr(self.operation, "weights", None))

    def filled(self, value_of: Callable[[Tensor], Any]) -> tuple[Any, dict[str, Any]]:
        """Return its arguments with other values where tensors go."""
        args, kwargs = keras.tree.map_structure(
            lambda leaf: value_of(leaf) if isinstance(leaf, Tensor) else leaf, self.arguments
        )
        return args, kwargs

    def again(self, value_of: Callable[[Tensor], Any]) -> Any:
        """Return what its operation gives for other values where tensors go."""
        args, kwargs = self.filled(value_of)
        return self.operation(*args, **kwargs)


@dataclass(frozen=True)
class Calls:
    """A model's calls.

    Attributes:
        inputs: What the model is given, in Keras' flat order.
        outputs: What it gives, in Keras' flat order.
        calls: In an order in which they can be made.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    calls: tuple[Call, ...]

    @property
    def chains(self) -> list[Chain]:
        """All layers, those around others too, with what is around them."""
        return list(dict.fromkeys(part for call in self.calls for part in prefixes(call.chain)))

    def without(self, stands_for: Mapping[Tensor, Tensor]) -> Calls:
        """Return these with other tensors read in place of some, less the calls that nothing depends on then."""
        made: dict[Tensor, Tensor] = {tensor: Tensor(tensor.shape) for tensor in self.inputs}
        calls = []

        def other(tensor: Tensor) -> Tensor:
            while tensor in stands_for:
                tensor = stands_for[tensor]
            return made[tensor]

        for call in self._needed(stands_for):
            results = [Tensor(tensor.shape) for tensor in call.results]
            calls.append(Call(call.chain, call.filled(other), results))
            made.update(zip(call.results, results, strict=True))
        ends = [[other(tensor) for tensor in group] for group in (self.inputs, self.outputs)]
        return _linked(ends[0], ends[1], calls)

    def _needed(self, stands_for: Mapping[Tensor, Tensor]) -> list[Call]:
        waiting, needed = list(self.outputs), set()
        while waiting:
            tensor = waiting.pop()
            if tensor in stands_for:
                waiting.append(stands_for[tensor])
            elif tensor.maker is not None and tensor.maker not in needed:
                needed.add(tensor.maker)
                waiting += tensor.maker.tensors
        return [call for call in self.calls if call in needed]


def functional_of(model: Any) -> Any:
    """Return the graph of layers that a model is; None where it is none, or where its own code calls them."""
    is_plain = getattr(type(model).call, "__module__", "").startswith("keras.")
    found = getattr(model, "_functional", None) or model
    return found if is_plain and isinstance(found, keras.Function) else None


def calls_of(model: Any) -> Calls | None:
    """Return the calls of a Functional or a Sequential model, models within it taken apart; None for any other."""
    functional = functional_of(model)
    if functional is None:
        return None
    inputs = [Tensor(tuple(tensor.shape)) for tensor in functional.inputs]
    calls: list[Call] = []
    return _linked(inputs, _flattened(functional, inputs, (), calls), calls)


def taken_apart(functional: Any) -> Calls:
    """Return the calls of a graph of layers (`functional_of`), and have the layers forget them.

    So another model can be built of the same layers, which would remember both; this one is not to be used any more.
    """
    calls = calls_of(functional)
    assert calls is not None  # noqa: S101 - it is a graph of layers
    for call in calls.calls:
        call.operation._inbound_nodes.clear()
        call.operation._outbound_nodes.clear()
    for tensor in functional.inputs:
        tensor._keras_history.operation._outbound_nodes.clear()
    return calls


def in_float32(functional: Any) -> Any:
    """Return the model with all of its layers computing in float32, in place."""
    for layer in layers_of(functional)[1:]:
        policy = layer.dtype_policy
        if policy.variable_dtype == "float32" != policy.compute_dtype:
            layer.dtype_policy = "float32"
    return functional


def uncompiled(functional: Any) -> Any:
    """Return a model of the same layers without a loss, which cloning would try to clone."""
    return keras.Model(functional._inputs_struct, functional._outputs_struct, name=functional.name)


def nodes_of(functional: Any) -> Iterator[Any]:
    """Yield the places where a graph of layers calls one, in an order in which that can be done."""
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        yield from (node for node in functional._nodes_by_depth[depth] if not node.is_input)


def _linked(inputs: Sequence[Tensor], outputs: Sequence[Tensor], calls: Sequence[Call]) -> Calls:
    for call in calls:
        for tensor in call.results:
            tensor.maker = call
        for tensor in call.tensors:
            tensor.readers.append(call)
    for tensor in outputs:
        tensor.is_output = True
    return Calls(tuple(inputs), tuple(outputs), tuple(calls))


def _flattened(
    functional: Any, given: Sequence[Tensor], around: Chain, calls: list[Call]
) -> list[Tensor]:
    """Add the calls of a model to `calls`, those of models within it too; return the tensors it gives."""
    found = {id(tensor): other for tensor, other in zip(functional.inputs, given, strict=True)}
    for node in nodes_of(functional):
        arguments = keras.tree.map_structure(
            lambda leaf: found.get(id(leaf), leaf), (node.arguments.args, node.arguments.kwargs)
        )
        call = Call((*around, node.operation), arguments, [])
        inner = functional_of(node.operation)
        if inner is not None and _fit(call.tensors, inner):
            results = _flattened(inner, call.tensors, call.chain, calls)
        else:
            results = call.results = [Tensor(tuple(tensor.shape)) for tensor in node.outputs]
            calls.append(call)
        found.update(zip(map(id, node.outputs), results, strict=True))
    return [found[id(tensor)] for tensor in functional.outputs]


def _fit(tensors: Sequence[Tensor], inner: Any) -> bool:
    """Say whether tensors are what a model within takes, one for each of its inputs."""
    ranks = [len(tensor.shape) for tensor in inner.inputs]  # Keras adds or drops an axis of 1
    return [len(tensor.shape) for tensor in tensors] == ranks


def _computes_as_keras(operation: Any) -> bool:
    """Say whether what is called is Keras' own code, and what that calls to convolve too."""
    methods = (getattr(type(operation), name, None) for name in ("call", "convolution_op"))
    return all(
        method.__module__.startswith("keras.")
        for method in methods
        if hasattr(method, "__module__")
    )
