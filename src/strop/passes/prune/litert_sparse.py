"""Sparse weights in LiteRT: zeros left out of the file, and skipped by the kernels that can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from strop.core.contracts import LITERT, Context, Effort, Exactness, Pass, Unchanged
from strop.core.model import Form, Model
from strop.core.parameters import parameter

if TYPE_CHECKING:
    from strop.graph.litert_zeros import Layer

# Below it a list of places takes as much room as the zeros that it spares: a byte or two beside each four.
_LEAST_ZEROS = 0.3
_HERE, _ELSEWHERE, _SMALLER = "here", "elsewhere", "smaller"


@final
@dataclass(frozen=True)
class WriteSparselyLiteRT(Pass):
    """Leave zeros out of weights where the engine has a kernel that skips them: it has two.

    Before:  x ── FullyConnected(W) ── Conv2D 1x1 (V) ── y
    After:   x ── FullyConnected(W without its blocks of zeros) ── Conv2D 1x1 (Densify(V without its zeros)) ── y

    LiteRT's own is for dense layers whose zeros come in blocks of four inputs (`prune.magnitude` with the pattern
    '4x1'), one row at a time, on any processor. XNNPACK's is for convolutions of 1x1 from a convolution of 3x3 over 3
    channels, stride 2, to a mean over space, where more than two thirds of the weights are zero and all between has a
    kernel for channels that come first; it has it for ARM, and on x86 only where there is no AVX.
    """

    takes = frozenset({Form.LITERT})
    requires = (LITERT,)
    exactness = Exactness.ROUNDING
    is_idempotent = True
    effort = Effort.STANDARD
    price = "zeros that no kernel skips are put back when the model is loaded: smaller, not faster"

    wanted: str = parameter(
        _HERE,
        choices=(_HERE, _ELSEWHERE, _SMALLER),
        search=(_SMALLER,),
        doc="'here' a kernel that skips zeros on this processor; 'elsewhere' one on ARM's, too; 'smaller' nothing but a "
        "smaller file",
    )
    # Leaving XNNPACK for one layer costs some 2 µs: a layer of 128 by 128 then takes 1.8 times as long.
    smallest: int = parameter(
        65_536,
        low=0,
        doc="dense layers with fewer weights than this are left to XNNPACK's dense kernels",
    )

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the flatbuffer without the zeros."""
        from strop.graph.litert_network import read_flatbuffer, write_flatbuffer
        from strop.graph.litert_sparse import write_sparsely
        from strop.graph.litert_zeros import has_avx, layers_with_zeros, part_for_xnnpack

        flatbuffer = read_flatbuffer(model.path)
        layers = layers_with_zeros(flatbuffer, _LEAST_ZEROS)
        if not layers:
            return Unchanged(
                f"no layer has weights of float32 of which {_LEAST_ZEROS:.0%} are zero"
            )
        blocks, why_no_blocks = self._in_blocks(flatbuffer, layers)
        part = part_for_xnnpack(flatbuffer, layers)
        why_no_part = part if isinstance(part, str) else ""
        if not why_no_part and self.wanted == _HERE and has_avx():
            why_no_part = "this processor has AVX, for which it keeps to dense kernels"
        if self.wanted != _SMALLER and why_no_part and not blocks:
            return Unchanged(
                f"no kernel would skip the zeros: XNNPACK's not, since {why_no_part}; LiteRT's own not, since "
                f"{why_no_blocks}"
            )
        pointwise = () if isinstance(part, str) or why_no_part else part.layers
        whole = pointwise
        if self.wanted == _SMALLER:
            taken = {id(layer.operator) for layer in blocks}
            whole = tuple(layer for layer in layers if id(layer.operator) not in taken)
        write_sparsely(
            flatbuffer,
            whole=whole,
            blocks=blocks,
            # Where weights lie sparsely XNNPACK may turn to sparse kernels, wanted or not.
            part=None if isinstance(part, str) or not whole else part,
        )
        path = context.workspace / "model.tflite"
        write_flatbuffer(flatbuffer, path)
        if self.wanted == _SMALLER and path.stat().st_size >= model.path.stat().st_size:
            return Unchanged(
                "the file would be no smaller: where zeros lie takes as much room as they do"
            )
        skipped = {layer.name: "LiteRT's own" for layer in blocks}
        skipped |= {layer.name: "XNNPACK's, on processors without AVX" for layer in pointwise}
        others = len(layers) > len(skipped)
        told = (
            {"computed_with_zeros": f"the others, since {why_no_part}"}
            if why_no_part and others
            else {}
        )
        return model.derive(self, Form.LITERT, path, model.binding, sparse_kernels=skipped, **told)

    def _in_blocks(self, flatbuffer: Any, layers: Sequence[Layer]) -> tuple[list[Layer], str]:
        """Return the layers that LiteRT's own kernel is for, and in words why it is not for the first of the others."""
        from strop.graph.litert_zeros import dense_layers, why_not_in_blocks

        found, reasons = [], ["no dense layer has as many zeros"]
        for layer in dense_layers(flatbuffer, layers):
            reason = why_not_in_blocks(flatbuffer, layer)
            if not reason and layer.weights < self.smallest:
                reason = f"has fewer than {self.smallest} weights"
            if reason:
                reasons.append(f"'{layer.name}' {reason}")
            else:
                found.append(layer)
        return found, reasons[:2][-1]
