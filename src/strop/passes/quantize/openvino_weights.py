"""OpenVINO weight compression by NNCF: integer weights, arithmetic in float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from strop.core.contracts import (
    OPENVINO,
    Context,
    Effort,
    Exactness,
    Pass,
    Requirement,
    Unchanged,
)
from strop.core.model import Form, Model
from strop.core.parameters import parameter

_MODES = {8: "INT8_ASYM", 4: "INT4_SYM"}


@final
@dataclass(frozen=True)
class CompressWeightsOpenVINO(Pass):
    """Keep weights as integers and unpack them to float where they are used.

    Before:  x ── MatMul(W float32) ── y
    After:   x ── MatMul((W int8 − zero) · scale) ── y
    """

    takes = frozenset({Form.OPENVINO})
    requires = (OPENVINO, Requirement("nncf", "nncf", "train"))
    exactness = Exactness.LOSSY
    only_shrinks_weights = True
    price = "the weights are unpacked to float before use: smaller, not faster"
    effort = Effort.STANDARD

    bits: int = parameter(8, choices=(4, 8), search=(8, 4), doc="width of a weight")

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the compressed model."""
        from strop.graph.openvino_quantizing import changed, layers_of, not_compressed

        if not layers_of(model.path):
            return Unchanged("no layer has weights to compress")
        path = context.workspace / "model.xml"

        def compress(graph: Any) -> Any:
            import nncf

            return nncf.compress_weights(
                graph, mode=getattr(nncf.CompressWeightsMode, _MODES[self.bits])
            )

        changed(model, path, compress)
        left, wider = not_compressed(path, self.bits)
        return model.derive(self, Form.OPENVINO, path, left_in_float=left, left_alone=wider)
