"""OpenVINO's intermediate representation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from strop.core.errors import ModelError, message
from strop.core.model import Binding, Form, Model
from strop.core.signature import Signature, TensorSpec
from strop.graph.reading import Options


def read(path: Path, workspace: Path, options: Options) -> Model:
    """Return the model; its weights lie beside it in a ``.bin``."""
    import openvino

    if not path.with_suffix(".bin").exists():
        raise ModelError(
            message(
                f"'{path}' lacks its weights: there is no '{path.with_suffix('.bin').name}' beside it.",
                "OpenVINO keeps the graph in .xml and the weights in .bin, in one folder.",
            )
        )
    read_model = openvino.Core().read_model(str(path))
    signature = Signature(
        tuple(_spec(port, f"input_{i}") for i, port in enumerate(read_model.inputs)),
        tuple(_spec(port, f"output_{i}") for i, port in enumerate(read_model.outputs)),
    ).with_shapes(options.shapes)
    return Model.at(
        Form.OPENVINO,
        path.resolve(),
        signature,
        Binding.plain(signature, batch=signature.batch),
    )


def _spec(port: Any, fallback: str) -> TensorSpec:
    names = sorted(port.get_names(), key=len)
    shape = tuple(None if n.is_dynamic else n.get_length() for n in port.get_partial_shape())
    dtype = (
        "str"
        if port.get_element_type().get_type_name() == "string"
        else np.dtype(port.get_element_type().to_dtype()).name
    )
    return TensorSpec(names[0].split(":")[0] if names else fallback, shape, dtype)
