"""Layers fused with what follows them, in TensorFlow's own kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from strop.core.contracts import Context, Exactness, Unchanged
from strop.core.model import Model
from strop.passes.simplify import Rewriting

_OPTIMIZERS = ("remap", "constfold", "pruning")


@final
@dataclass(frozen=True)
class Fuse(Rewriting):
    """Fuse a convolution or matrix product with its bias and activation, into one kernel of TensorFlow's.

    Before:  x ── Conv2D ── BiasAdd ── Relu
    After:   x ── _FusedConv2D(BiasAdd, Relu)

    Done by Grappler's remapper, which TensorFlow runs at load too: what is gained is the load, and what other
    rewritings hide from it. Other engines don't know these operations; converters get them written out again.
    """

    exactness = Exactness.ROUNDING
    never_grows = True

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the rewritten graph."""
        from strop.graph.simplifying import simplified_by_grappler

        nothing = "no layer is followed by what it can be fused with"
        return simplified_by_grappler(self, model, context, _OPTIMIZERS, nothing=nothing)
