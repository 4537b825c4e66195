"""LiteRT flatbuffers: made of frozen graphs, and which of their tensors stands for which of the signature's."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
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
    graph: FrozenGraph, signature: Signature, path: Path, *, batch: int | None
) -> Binding:
    """Write `graph` as a flatbuffer of built-in operations at `path`; return how that spells the signature.

    The flatbuffer's own signature has the logical names, so that it can be run by name with the engine's own API,
    and inputs and outputs can be told for certain: the converter orders and renames tensors as it likes.

    Args:
        graph: What to convert, in order (see `frozen_of`).
        signature: Gives the inputs' shapes.
        path: Where to write.
        batch: A batch size to fix; None leaves it free.

    Raises:
        ConversionError: If inputs or outputs were lost on the way.
    """
    import tensorflow as tf

    inputs, outputs = _arguments(signature.input_names), _arguments(signature.output_names)
    function = traced(graph, signature, batch=batch)

    def serve(**tensors: Any) -> dict[str, Any]:
        return dict(zip(outputs, function(*[tensors[name] for name in inputs]), strict=True))

    module = tf.Module()
    module.serve = tf.function(serve, autograph=False)
    specs = {
        name: tf.TensorSpec(tensor.shape, tensor.dtype, name=name)
        for name, tensor in zip(inputs, function.inputs, strict=True)
    }
    with tempfile.TemporaryDirectory(prefix="strop-") as folder:
        served = module.serve.get_concrete_function(**specs)
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, folder, signatures={SIGNATURE: served}, options=options)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        path.write_bytes(converter.convert())
    return binding_by_names(path, inputs, outputs, batch=batch)


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
