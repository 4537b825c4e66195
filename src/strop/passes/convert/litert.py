"""To LiteRT (``.tflite``), by TensorFlow's own converter."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from strop.core.contracts import LITERT, TENSORFLOW, Context, Exactness, Pass, Unchanged
from strop.core.errors import ConversionError, message
from strop.core.model import Form, Model
from strop.core.parameters import parameter

_LOOP = message(
    "LiteRT runs a loop over time only at a batch size that is known when it is traced.",
    "Fix it when the graph is frozen.",
    next_step="convert.graph_def(batch=1)",
)


@final
@dataclass(frozen=True)
class ConvertToLiteRT(Pass):
    """Convert a frozen graph to a LiteRT flatbuffer: in float32, or in the integers that it was taught to compute in.

    Before:  GraphDef
    After:   .tflite with built-in operations only
    """

    takes = frozenset({Form.GRAPH_DEF})
    gives = Form.LITERT
    requires = (TENSORFLOW, LITERT)
    exactness = Exactness.ROUNDING
    loads_tensorflow = True

    batch: int = parameter(0, low=0, search=("batch",), doc="batch size to fix; 0 leaves it free")

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the flatbuffer."""
        from strop.graph.frozen import frozen_of
        from strop.graph.litert import to_litert
        from strop.graph.quiet import quiet
        from strop.graph.supported_ops import refusal_of

        batch = self.batch or model.binding.batch
        path = context.workspace / "model.tflite"
        with quiet():
            try:
                graph, is_taught = frozen_of(model), _is_taught(model)
                special = _in_integers(graph.definition) if is_taught else {}
                binding = to_litert(graph, model.signature, path, batch=batch, **special)
            except ConversionError:
                raise
            # The converter lets errors of every kind through.
            except Exception as error:
                if "TensorListReserve" in str(error):
                    raise ConversionError(_LOOP) from error
                raise refusal_of("the LiteRT converter", error, model, "litert") from error
        told = {"left_in_float": _left_in_float(model, path)} if is_taught else {}
        return model.derive(self, Form.LITERT, path, binding, **told)


def _is_taught(model: Model) -> bool:
    """Say whether a graph has the ranges of its tensors in it, since it was taught to be quantized."""
    return any("quantize.aware" in step for step in model.lineage)


def _in_integers(definition: Any) -> dict[str, Callable[[Any], None]]:
    """Make a taught graph ready, in place; return how to set up the converter, and what to do to what it gives."""
    from strop.graph.coded_weights import (
        coded_weights_of,
        narrow,
        roundings_of,
        wall_off,
        write_decoded,
    )
    from strop.graph.litert_taught import put_right

    kernels, roundings = coded_weights_of(definition), roundings_of(definition)
    wall_off(definition)
    write_decoded(definition)
    narrow(definition)

    def configure(converter: Any) -> None:
        import tensorflow as tf

        converter.optimizations = [tf.lite.Optimize.DEFAULT]

    return {"configure": configure, "edit": lambda made: put_right(made, kernels, roundings)}


def _left_in_float(model: Model, path: Path) -> dict[str, str]:
    """Return what was taught in float, and layers that the engine has no integer kernel for, with the reason."""
    from strop.graph.litert_quantizing import left_in_float

    told = dict(model.facts.get("left_in_float", {}))
    found = left_in_float(path, (), reason="LiteRT has no integer kernel for it")
    return told | {
        name: reason for name, reason in found.items() if not any(map(_within(name), told))
    }


def _within(tensor: str) -> Callable[[str], bool]:
    """Return what says whether a layer is the one that gives a tensor, by name; each call has a number behind it."""
    parts = tensor.split("/")
    return lambda layer: any(
        re.fullmatch(rf"{re.escape(layer.split('/')[-1])}(_\d+)?", part) for part in parts
    )
