"""LiteRT flatbuffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from strop.core.model import Binding, Form, Model
from strop.core.signature import Signature, TensorSpec
from strop.graph.litert import tensor
from strop.graph.reading import Options


def read(path: Path, workspace: Path, options: Options) -> Model:
    """Return the flatbuffer; quantized inputs and outputs are its signature's own, as their owner sees them."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    ins, outs = interpreter.get_input_details(), interpreter.get_output_details()
    names_in, names_out = _signature_names(interpreter)
    signature = Signature(_specs(ins, names_in), _specs(outs, names_out))
    batches = {details["shape_signature"][0] for details in ins if len(details["shape_signature"])}
    free = -1 in batches
    fixed = None if free or not batches else int(next(iter(batches)))
    binding = Binding(
        tuple(_unscaled(ins, i) for i in range(len(ins))),
        tuple(_unscaled(outs, i) for i in range(len(outs))),
        fixed,
    )
    return Model.at(Form.LITERT, path.resolve(), signature.with_shapes(options.shapes), binding)


def _unscaled(details: Sequence[Any], index: int) -> Any:
    found = tensor(details, index)
    return type(found)(found.name, found.index, found.dtype)


def _signature_names(interpreter: Any) -> tuple[Mapping[int, str], Mapping[int, str]]:
    """Return the names that the file's own signature gives its tensors, by tensor index."""
    signatures = interpreter._get_full_signature_list()
    if len(signatures) != 1:
        return {}, {}
    only = next(iter(signatures.values()))
    return (
        {index: name for name, index in only["inputs"].items()},
        {index: name for name, index in only["outputs"].items()},
    )


def _specs(details: Sequence[Any], names: Mapping[int, str]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            names.get(d["index"], d["name"].split(":")[0]),
            tuple(None if n < 0 else int(n) for n in d["shape_signature"]),
            "str" if d["dtype"] in (np.bytes_, np.object_) else np.dtype(d["dtype"]).name,
        )
        for d in details
    )
