"""LiteRT flatbuffers: which of their tensors stands for which of the signature's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from strop.core.errors import ConversionError
from strop.core.model import Binding, Model, TensorBinding


def binding_of(
    path: Path,
    model: Model,
    inputs: Sequence[str],
    outputs: Sequence[str],
    *,
    batch: int | None,
) -> Binding:
    """Return how the flatbuffer at `path`, made from `model`, spells the signature.

    The converter keeps the order of inputs and outputs, not their names.

    Args:
        path: The flatbuffer.
        model: What it was made from.
        inputs: The names of the tensors it was made from, in the order the converter was given them.
        outputs: Likewise.
        batch: The batch size that was fixed; None where it is free.

    Raises:
        ConversionError: If inputs or outputs were lost on the way.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    ins, outs = interpreter.get_input_details(), interpreter.get_output_details()
    bound = model.binding
    if len(ins) != len(inputs) or len(outs) != len(outputs):
        raise ConversionError(
            f"the LiteRT converter gave {len(ins)} inputs and {len(outs)} outputs for "
            f"{len(inputs)} and {len(outputs)}"
        )
    in_position = {name: i for i, name in enumerate(inputs)}
    out_position = {name: i for i, name in enumerate(outputs)}
    return Binding(
        tuple(tensor(ins, in_position[b.name]) for b in bound.inputs),
        tuple(tensor(outs, out_position[b.name]) for b in bound.outputs),
        batch,
    )


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
