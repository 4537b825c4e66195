"""OpenVINO's intermediate representation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from strop.core.errors import ModelError, message
from strop.core.model import Binding, Form, Model
from strop.core.signature import Signature, TensorSpec
from strop.graph.names import unique
from strop.graph.reading import Options, shaped


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
    signature = Signature(_specs(read_model.inputs, "input"), _specs(read_model.outputs, "output"))
    signature = shaped(signature, options, path)
    return Model.at(
        Form.OPENVINO,
        path.resolve(),
        signature,
        Binding.plain(signature, batch=signature.batch),
    )


def _specs(ports: Sequence[Any], kind: str) -> tuple[TensorSpec, ...]:
    names = unique([_name(port, f"{kind}_{place}") for place, port in enumerate(ports)])
    return tuple(map(_spec, ports, names))


def _name(port: Any, fallback: str) -> str:
    names = sorted(port.get_names(), key=len)
    return names[0].split(":")[0] if names else fallback


def _spec(port: Any, name: str) -> TensorSpec:
    shape = tuple(None if n.is_dynamic else n.get_length() for n in port.get_partial_shape())
    dtype = (
        "str"
        if port.get_element_type().get_type_name() == "string"
        else np.dtype(port.get_element_type().to_dtype()).name
    )
    return TensorSpec(name, shape, dtype)
