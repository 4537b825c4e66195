"""LiteRT flatbuffers: made of frozen graphs, and which of their tensors stands for which of the signature's."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from strop.core.errors import ConversionError
from strop.core.model import Binding, TensorBinding
from strop.core.signature import Signature
from strop.graph.frozen import FrozenGraph, traced

_FOREIGN_TO_ARGUMENTS = re.compile(r"\W")
SIGNATURE = "serving_default"


def to_litert(
    graph: FrozenGraph,
    signature: Signature,
    path: Path,
    *,
    batch: int | None,
    configure: Callable[[Any], None] | None = None,
    edit: Callable[[Any], None] | None = None,
) -> Binding:
    """Write `graph` as a flatbuffer of built-in operations at `path`; return how that spells the signature.

    The flatbuffer gets a signature of its own with the logical names, so that it can be run by name with the engine's
    own API. (The converter writes one only of a SavedModel, which for large models takes three times as long.)

    Args:
        graph: What to convert, in order (see `frozen_of`).
        signature: Gives the inputs' shapes.
        path: Where to write.
        batch: A batch size to fix; None leaves it free.
        configure: Sets up the `TFLiteConverter` before it converts; it is asked for inputs in the signature's order.
        edit: Changes what it gave, in place: the flatbuffer as TensorFlow's reader of the schema has it.

    Raises:
        ConversionError: If inputs or outputs were lost on the way.
    """
    import tensorflow as tf

    function = traced(graph, signature, batch=batch)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if configure:
        configure(converter)
    inputs, outputs = _arguments(signature.input_names), _arguments(signature.output_names)
    path.write_bytes(_signed(converter.convert(), inputs, outputs, edit))
    return binding_by_names(path, inputs, outputs, batch=batch)


def _signed(
    content: bytes,
    inputs: Sequence[str],
    outputs: Sequence[str],
    edit: Callable[[Any], None] | None,
) -> bytes:
    """Return a flatbuffer, edited, with the names of its inputs and outputs, given in its own order, written into it.

    Raises:
        ConversionError: If it has another number of them.
    """
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    if edit:
        edit(model)
    graph = model.subgraphs[0]
    if (len(graph.inputs), len(graph.outputs)) != (len(inputs), len(outputs)):
        raise ConversionError(
            f"the LiteRT converter gave {len(graph.inputs)} inputs and {len(graph.outputs)} outputs "
            f"for {len(inputs)} and {len(outputs)}"
        )

    def named(names: Sequence[str], tensors: Sequence[int]) -> list[Any]:
        found = []
        for name, index in zip(names, tensors, strict=True):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, int(index)
            found.append(entry)
        return found

    written = schema.SignatureDefT()
    written.signatureKey, written.subgraphIndex = SIGNATURE, 0
    written.inputs, written.outputs = named(inputs, graph.inputs), named(outputs, graph.outputs)
    model.signatureDefs = [written]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def binding_by_names(
    path: Path, inputs: Sequence[str], outputs: Sequence[str], *, batch: int | None
) -> Binding:
    """Return the binding of a flatbuffer, by the names in its own signature.

    Raises:
        ConversionError: If it lacks one of them.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    runner = interpreter.get_signature_runner(SIGNATURE)
    return Binding(
        _by_name(interpreter.get_input_details(), runner.get_input_details(), inputs),
        _by_name(interpreter.get_output_details(), runner.get_output_details(), outputs),
        batch,
    )


def _by_name(
    details: Sequence[Any], named: dict[str, Any], names: Sequence[str]
) -> tuple[TensorBinding, ...]:
    positions = {found["index"]: position for position, found in enumerate(details)}
    lost = [name for name in names if name not in named or named[name]["index"] not in positions]
    if lost:
        raise ConversionError(f"the LiteRT converter lost {', '.join(lost)} on the way")
    return tuple(tensor(details, positions[named[name]["index"]]) for name in names)


def tensor(details: Sequence[Any], index: int) -> TensorBinding:
    """Return the binding of the tensor at `index` of an interpreter's input or output details."""
    found = details[index]
    scale, zero_point = found["quantization"]
    quantized = bool(scale) and np.dtype(found["dtype"]).kind in "iu"
    return TensorBinding(
        found["name"],
        index,
        np.dtype(found["dtype"]).name,
        scale=float(scale) if quantized else None,
        zero_point=int(zero_point) if quantized else 0,
    )


def _arguments(names: Sequence[str]) -> list[str]:
    """Return names that Python takes for arguments, as near to `names` as can be, each another.

    Example:
        >>> _arguments(["image", "x/y", "x.y", "2d"])
        ['image', 'x_y', 'x_y_1', '_2d']
    """
    found: list[str] = []
    for name in names:
        plain = _FOREIGN_TO_ARGUMENTS.sub("_", name) or "_"
        plain = f"_{plain}" if plain[0].isdigit() else plain
        unique, number = plain, 1
        while unique in found:
            unique, number = f"{plain}_{number}", number + 1
        found.append(unique)
    return found
