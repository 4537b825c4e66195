"""ONNX models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from strop.core.errors import ModelError, UnsafeModelError, message
from strop.core.model import Binding, Form, Model
from strop.core.signature import Signature, TensorSpec
from strop.graph.reading import Options, shaped

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(string)": "str",
    "tensor(bool)": "bool",
}
_FOREIGN = re.compile(r"([\w.]+:)?(\w+)\(-?\d+\) is not a registered function/op")


def read(path: Path, workspace: Path, options: Options) -> Model:
    """Return the model; weights that lie in other files are brought into a copy beneath `workspace`."""
    proto = _parsed(path)
    file, notes = path.resolve(), []
    if proto is not None and _takes_in_weights(proto, path, options):
        file = workspace / "model.onnx"
        file.write_bytes(proto.SerializeToString())
        notes = ["weights that lie in files of their own are brought into a copy of the model"]
    session = _opened(file, path)
    ins, outs = session.get_inputs(), session.get_outputs()
    if not ins:
        raise ModelError(
            message(f"'{path}' takes no inputs.", "A model to optimize has at least one.")
        )
    told = Signature(tuple(map(_spec, ins)), tuple(map(_spec, outs)))
    signature = shaped(told, options, path, rankless=_rankless(proto) & set(told.input_names))
    binding = Binding.plain(
        signature, [i.name for i in ins], [o.name for o in outs], batch=signature.batch
    )
    return Model.at(Form.ONNX, file, signature, binding, **({"notes": notes} if notes else {}))


def _parsed(path: Path) -> Any | None:
    try:
        import onnx
    except ImportError:
        # Then the engine's own checks have to do: it refuses weights from outside of the folder.
        return None
    return onnx.load(str(path), load_external_data=False)


def _opened(file: Path, path: Path) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    # It is opened to be looked at only.
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(
            str(file), settings, providers=["CPUExecutionProvider"]
        )
    # ONNX Runtime raises errors of kinds of its own.
    except Exception as error:
        foreign = _FOREIGN.search(str(error))
        if foreign is None:
            raise
        raise ModelError(
            message(
                f"'{path}' uses the operation {foreign.group(1) or ''}{foreign.group(2)}, which ONNX Runtime "
                "does not have.",
                "It comes from a library of custom operations, which strop does not load.",
            )
        ) from None


def _spec(node: Any) -> TensorSpec:
    shape = tuple(n if isinstance(n, int) and n > 0 else None for n in node.shape)
    dtype = _DTYPES.get(node.type) or re.sub(r"^tensor\((.*)\)$", r"\1", node.type)
    return TensorSpec(node.name, shape, dtype)


def _rankless(proto: Any | None) -> set[str]:
    """Return the inputs without a shape, which ONNX Runtime shows as it shows scalars."""
    return {
        value.name
        for value in (proto.graph.input if proto is not None else ())
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape")
    }


def _takes_in_weights(proto: Any, path: Path, options: Options) -> bool:
    """Bring weights that lie in other files into `proto`, in place; say whether there were any.

    Those in the one file that belongs to a model of ours (see `files_of`) stay there: they may be too many for a
    single protobuf.

    Raises:
        UnsafeModelError: If one lies outside of the model's folder and is not allowed to.
    """
    outside = [tensor for tensor in _tensors(proto) if tensor.external_data]
    places = {id(tensor): _entries(tensor).get("location", "") for tensor in outside}
    folder = path.parent.resolve()
    for place in sorted(set(places.values())):
        inside = (path.parent / place).resolve().is_relative_to(folder)
        if not inside and "external-data" not in options.allow:
            raise UnsafeModelError(
                message(
                    f"'{path}' keeps weights in '{place}', outside of its own folder.",
                    "If you trust where the model comes from, allow it:",
                    next_step="--allow external-data",
                ),
                allow="external-data",
            )
    if set(places.values()) <= {f"{path.name}.data"}:
        return False
    for tensor in outside:
        tensor.raw_data = _content(path.parent / places[id(tensor)], _entries(tensor), path)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return True


def _entries(tensor: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _content(file: Path, entries: dict[str, str], path: Path) -> bytes:
    if not file.is_file():
        raise ModelError(
            message(
                f"'{path}' keeps weights in '{entries.get('location', '')}', which is not there.",
                "Both files belong together: copy them into one folder.",
            )
        )
    with file.open("rb") as content:
        content.seek(int(entries.get("offset", 0)))
        return content.read(int(entries["length"]) if "length" in entries else -1)


def _tensors(message_: Any) -> Iterator[Any]:
    """Yield every tensor within a protobuf of ONNX, those in attributes, branches and functions among them."""
    if message_.DESCRIPTOR.name == "TensorProto":
        yield message_
        return
    for field, value in message_.ListFields():
        if field.message_type is not None:
            repeated = hasattr(value, "__len__") and not hasattr(value, "ListFields")
            for part in value if repeated else (value,):
                yield from _tensors(part)
