"""A live Keras model as the calls of its layers and operations, in order, those of models within it among them.

For who builds another model of the same layers: a step is a call, an edge a tensor, and `Step.call` makes the call anew
on other tensors. A layer that is called twice is one layer in two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

Chain = tuple[Any, ...]
"""The nested models around a layer, from the outermost, and the layer."""


@dataclass(eq=False)
class Edge:
    """A tensor of the model, through all the nested models that it goes in and out of.

    Attributes:
        rank: How many axes it has.
        readers: The steps that read it, once for each time.
        is_input: Whether the model is given it.
        is_output: Whether the model gives it.
    """

    rank: int
    readers: list[Step] = field(default_factory=list)
    is_input: bool = False
    is_output: bool = False

    @property
    def sole_reader(self) -> Step | None:
        """The step that reads it where nobody else does."""
        return self.readers[0] if len(self.readers) == 1 and not self.is_output else None


@dataclass(eq=False)
class Step:
    """One call of a layer or an operation.

    Attributes:
        chain: The nested models around it, from the outermost, and the layer or operation.
        arguments: Positional ones and those by name, with edges where tensors go.
        results: The tensors it gives.
    """

    chain: Chain
    arguments: tuple[Any, dict[str, Any]]
    results: list[Edge]

    @property
    def operation(self) -> Any:
        """The layer or operation."""
        return self.chain[-1]

    @property
    def edges(self) -> list[Edge]:
        """The tensors that it reads."""
        return [leaf for leaf in keras.tree.flatten(self.arguments) if isinstance(leaf, Edge)]

    @property
    def operands(self) -> list[Any]:
        """What it is given by position: edges, and numbers."""
        return list(keras.tree.flatten(self.arguments[0]))

    @property
    def kind(self) -> str:
        """The name of the class that it is of, or derived from, if that is Keras' own and computes as that does."""
        kinds = [k for k in type(self.operation).__mro__ if k.__module__.startswith("keras.")]
        return kinds[0].__name__ if kinds and _computes_as_keras(self.operation) else ""

    @property
    def kinds(self) -> set[str]:
        """The names of all Keras' classes that it is derived from; empty where it computes otherwise."""
        return {k.__name__ for k in type(self.operation).__mro__} if self.kind else set()

    @property
    def name(self) -> str:
        """Its name after those around it."""
        return "/".join(part.name for part in self.chain)

    def call(self, tensor_of: Callable[[Edge], Any]) -> Any:
        """Return what the operation gives for other tensors."""
        args, kwargs = keras.tree.map_structure(
            lambda leaf: tensor_of(leaf) if isinstance(leaf, Edge) else leaf, self.arguments
        )
        return self.operation(*args, **kwargs)


def functional_of(model: Any) -> Any:
    """Return the graph of layers that a model is; None where it is none, or calls otherwise."""
    is_plain = getattr(type(model).call, "__module__", "").startswith("keras.")
    found = getattr(model, "_functional", None) or model
    return found if is_plain and hasattr(found, "_nodes_by_depth") else None


def in_float32(functional: Any) -> Any:
    """Return the model with all of its layers computing in float32, in place."""
    for layer in functional._flatten_layers(include_self=False):
        policy = layer.dtype_policy
        if policy.variable_dtype == "float32" != policy.compute_dtype:
            layer.dtype_policy = "float32"
    return functional


def uncompiled(functional: Any) -> Any:
    """Return a model of the same layers without a loss, which cloning would try to clone."""
    return keras.Model(functional._inputs_struct, functional._outputs_struct, name=functional.name)


def steps_of(functional: Any) -> tuple[dict[int, Edge], list[Step]]:
    """Return the model's input and output edges, by the id of their tensors, and its calls in order.

    The layers forget that they were called, so that another model can be built of them; this one is not to be used any
    more.
    """
    inputs = [Edge(len(tensor.shape), is_input=True) for tensor in functional.inputs]
    steps: list[Step] = []
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


def chains_of(steps: Sequence[Step]) -> list[Chain]:
    """Return all layers, those around others too, with what is around them."""
    found = {
        step.chain[:length]: None for step in steps for length in range(1, len(step.chain) + 1)
    }
    return list(found)


def _flattened(
    functional: Any, given: Sequence[Edge], around: Chain, steps: list[Step]
) -> list[Edge]:
    """Add the calls of a model to `steps`, those of models within it too; return the edges it gives."""
    edges = {id(tensor): edge for tensor, edge in zip(functional.inputs, given, strict=True)}
    for node in _nodes_of(functional):
        arguments = keras.tree.map_structure(
            lambda leaf: edges.get(id(leaf), leaf), (node.arguments.args, node.arguments.kwargs)
        )
        chain = (*around, node.operation)
        inner = functional_of(node.operation) if hasattr(node.operation, "layers") else None
        taken = [e for e in keras.tree.flatten(arguments[0]) if isinstance(e, Edge)]
        if inner is not None and len(taken) == len(inner.inputs):
            results = _flattened(inner, taken, chain, steps)
        else:
            results = [Edge(len(tensor.shape)) for tensor in node.outputs]
            steps.append(Step(chain, arguments, results))
        edges.update(zip(map(id, node.outputs), results, strict=True))
    return [edges[id(tensor)] for tensor in functional.outputs]


def _nodes_of(functional: Any) -> Iterator[Any]:
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        yield from (node for node in functional._nodes_by_depth[depth] if not node.is_input)


def _computes_as_keras(operation: Any) -> bool:
    """Say whether what is called is Keras' own code, and what that calls to convolve too."""
    methods = (getattr(type(operation), name, None) for name in ("call", "convolution_op"))
    return all(
        method.__module__.startswith("keras.")
        for method in methods
        if hasattr(method, "__module__")
    )
