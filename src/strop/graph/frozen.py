"""Freezing: any TensorFlow model as one inlined GraphDef whose variables are constants, the pivot of all conversions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.core.model import Model
from strop.core.signature import Shape, Signature


@dataclass(frozen=True)
class FrozenGraph:
    """A GraphDef without variables, with the tensors that stand for the signature.

    Attributes:
        definition: The `GraphDef` protobuf.
        inputs: Tensor names (``x:0``) in the signature's order.
        outputs: Tensor names in the signature's order.
    """

    definition: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def freeze(
    function: Any, signature: Signature, *, batch: int | None = None
) -> FrozenGraph:
    """Return a frozen graph of a function of tensors.

    Args:
        function: Takes tensors and returns a list of tensors, both in the signature's order.
        signature: Gives the shapes and dtypes of the inputs.
        batch: A batch size to fix; None leaves it free.
    """
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    specs = [
        tf.TensorSpec(_shape(spec.shape, batch), spec.dtype, name=f"input_{i}")
        for i, spec in enumerate(signature.inputs)
    ]

    def named(*tensors: Any) -> list[Any]:
        results = function(*tensors)
        return [
            tf.identity(result, name=f"output_{i}") for i, result in enumerate(results)
        ]

    concrete = tf.function(named, autograph=False).get_concrete_function(*specs)
    frozen = convert_to_constants.convert_variables_to_constants_v2(
        concrete, lower_control_flow=False, aggressive_inlining=True
    )
    inputs = _inputs_in_order(frozen, len(specs))
    return FrozenGraph(
        frozen.graph.as_graph_def(), inputs, tuple(t.name for t in frozen.outputs)
    )


def _inputs_in_order(frozen: Any, count: int) -> tuple[str, ...]:
    """Return the input tensors by our names: freezing drops inputs that nothing reads, and may reorder."""
    present = {tensor.name.split(":")[0]: tensor.name for tensor in frozen.inputs}
    return tuple(present.get(f"input_{i}", f"input_{i}:0") for i in range(count))


def _shape(shape: Shape, batch: int | None) -> list[int | None]:
    return [batch if batch else shape[0], *shape[1:]] if shape else []


def imported(definition: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Return a frozen graph as a concrete function of its input tensors."""
    import tensorflow as tf

    wrapped = tf.compat.v1.wrap_function(
        lambda: tf.compat.v1.import_graph_def(definition, name=""), []
    )
    return wrapped.prune(
        [wrapped.graph.get_tensor_by_name(name) for name in inputs],
        [wrapped.graph.get_tensor_by_name(name) for name in outputs],
    )


def read_graph(path: Path) -> Any:
    """Return the GraphDef in a binary file."""
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(path.read_bytes())
    return definition


def with_shapes(graph: FrozenGraph, signature: Signature, *, batch: int | None) -> Any:
    """Return a frozen graph as a concrete function whose inputs have `signature`'s shapes, the batch fixed.

    Placeholders in a graph carry their own shapes; retracing the graph under new ones lets shapes be inferred
    anew all the way down, which is what converters and engines want of a fixed batch.
    """
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    definition = tf.compat.v1.GraphDef()
    definition.CopyFrom(graph.definition)
    shapes = {
        name.split(":")[0]: _shape(spec.shape, batch)
        for name, spec in zip(graph.inputs, signature.inputs, strict=True)
    }
    for node in definition.node:
        if node.op == "Placeholder" and node.name in shapes:
            node.attr["shape"].shape.CopyFrom(
                tf.TensorShape(shapes[node.name]).as_proto()
            )
        node.attr.pop("_output_shapes", None)
    function = imported(definition, graph.inputs, graph.outputs)
    return convert_to_constants.convert_variables_to_constants_v2(function)


def frozen_of(model: Model) -> FrozenGraph:
    """Return the frozen graph that a model of form ``graph_def`` is."""
    return FrozenGraph(
        read_graph(model.path),
        tuple(bound.name for bound in model.binding.inputs),
        tuple(bound.name for bound in model.binding.outputs),
    )
