"""ONNX models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from strop.core.errors import ModelError, UnsafeModelError, message
from strop.core.model import Binding, Form, Model
from strop.core.signature import Signature, TensorSpec
from strop.graph.reading import Options

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(string)": "str",
    "tensor(bool)": "bool",
}


def read(path: Path, workspace: Path, options: Options) -> Model:
    """Return the model; external data must lie in its own folder."""
    import onnxruntime

    _refuse_far_data(path, options)
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 4
    # It is opened to be looked at only.
    session_options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        str(path), session_options, providers=["CPUExecutionProvider"]
    )
    ins, outs = session.get_inputs(), session.get_outputs()
    if not ins:
        raise ModelError(
            message(f"'{path}' takes no inputs.", "A model to optimize has at least one.")
        )
    signature = Signature(tuple(map(_spec, ins)), tuple(map(_spec, outs))).with_shapes(
        options.shapes
    )
    fixed = signature.batch
    binding = Binding.plain(signature, [i.name for i in ins], [o.name for o in outs], batch=fixed)
    return Model.at(Form.ONNX, path.resolve(), signature, binding)


def _spec(node: Any) -> TensorSpec:
    shape = tuple(n if isinstance(n, int) and n > 0 else None for n in node.shape)
    dtype = _DTYPES.get(node.type) or node.type.removeprefix("tensor(").removesuffix(")")
    return TensorSpec(node.name, shape, dtype)


def _refuse_far_data(path: Path, options: Options) -> None:
    try:
        import onnx
    except (
        ImportError
    ):  # then the engine's own check has to do: it refuses paths that leave the folder
        return
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        places = [entry.value for entry in tensor.external_data if entry.key == "location"]
        for place in places:
            inside = (path.parent / place).resolve().is_relative_to(path.parent.resolve())
            if not inside and "external-data" not in options.allow:
                raise UnsafeModelError(
                    message(
                        f"'{path}' keeps weights in '{place}', outside of its own folder.",
                        "If you trust where the model comes from, allow it:",
                        next_step="--allow external-data",
                    ),
                    allow="external-data",
                )
