"""LiteRT flatbuffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from strop.core.errors import ModelError, message
from strop.core.model import Binding, Form, Model
from strop.core.signature import Signature, TensorSpec
from strop.graph.litert import tensor
from strop.graph.names import unique
from strop.graph.reading import Options, shaped


def read(path: Path, workspace: Path, options: Options) -> Model:
    """Return the flatbuffer; quantized inputs and outputs are its signature's own, as their owner sees them."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    _refuse_foreign(path, interpreter)
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
    return Model.at(Form.LITERT, path.resolve(), shaped(signature, options, path), binding)


def _refuse_foreign(path: Path, interpreter: Any) -> None:
    """Refuse operations that LiteRT does not have itself: TensorFlow's own, and custom ones."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    builtin = _builtin_operations()
    kinds = {operation["op_name"] for operation in interpreter._get_ops_details()}
    foreign = sorted(kinds - builtin)
    if not foreign:
        return
    try:  # LiteRT brings a few custom operations along (TFLite_Detection_PostProcess)
        Interpreter(
            model_path=str(path),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        ).allocate_tensors()
    except RuntimeError as error:
        if "custom op" not in str(error) and "Select TensorFlow op" not in str(error):
            return
        raise ModelError(
            message(
                f"'{path}' uses {', '.join(foreign)}, which LiteRT does not have.",
                "Those whose names begin with Flex are TensorFlow's, others come from a library of custom "
                "operations; strop loads neither. Convert the model again from where it came from:",
                next_step="strop optimize model.keras",
            )
        ) from None


def _builtin_operations() -> set[str]:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    return {name for name in vars(BuiltinOperator) if name.isupper()} | {"DELEGATE"}


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
    told = unique([names.get(d["index"], d["name"].split(":")[0]) for d in details])
    return tuple(
        TensorSpec(
            name,
            tuple(None if n < 0 else int(n) for n in d["shape_signature"]),
            "str" if d["dtype"] in (np.bytes_, np.object_) else np.dtype(d["dtype"]).name,
        )
        for name, d in zip(told, details, strict=True)
    )
