"""Freezing: any TensorFlow model as one inlined GraphDef whose variables are constants, the pivot of all conversions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


def freeze(function: Any, signature: Signature, *, batch: int | None = None) -> FrozenGraph:
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
        return [tf.identity(result, name=f"output_{i}") for i, result in enumerate(results)]

    concrete = tf.function(named, autograph=False).get_concrete_function(*specs)
    frozen = convert_to_constants.convert_variables_to_constants_v2(
        concrete, lower_control_flow=False, aggressive_inlining=True
    )
    inputs = _inputs_in_order(frozen, len(specs))
    return FrozenGraph(frozen.graph.as_graph_def(), inputs, tuple(t.name for t in frozen.outputs))


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
