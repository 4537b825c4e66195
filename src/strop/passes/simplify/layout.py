"""The order of an image's axes, as the processor's kernels want it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from strop.core.contracts import Context, Exactness, Unchanged
from strop.core.model import Model
from strop.passes.simplify import Rewriting

if TYPE_CHECKING:
    from strop.graph.simplifying import Ends

_CHANNELS_FIRST = (b"NCHW", b"NCDHW")


@final
@dataclass(frozen=True)
class Layout(Rewriting):
    """Write layers for channels-last data where they are for channels-first, which TensorFlow's own kernels can't run.

    Before:  x (NCHW) ── Conv2D(NCHW) ── BiasAdd(NCHW) ── MaxPool(NCHW) ── y (NCHW)
    After:   x (NCHW) ── Transpose ── Conv2D ── BiasAdd ── MaxPool ── Transpose ── y (NCHW)

    Done by Grappler's layout optimizer, which pushes the transpositions together and cancels them. Inputs and outputs
    keep the order of their axes.
    """

    exactness = Exactness.ROUNDING

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the graph with channels last."""
        from strop.graph.simplifying import simplified

        nothing = "no layer is for channels-first data"
        return simplified(self, model, context, _turn, nothing=nothing)


def _turn(definition: Any, ends: Ends) -> bool:
    from strop.graph.grappler import grappled

    before = _channels_first(definition)
    if not before:
        return False
    found = grappled(definition, sorted(ends.nodes), ("layout",), iterations=1, channels_last=True)
    if _channels_first(found) == before:
        return False
    definition.CopyFrom(found)
    return True


def _channels_first(definition: Any) -> int:
    from strop.graph.view import attribute

    return sum(
        attribute(node, "data_format", "s", b"NHWC") in _CHANNELS_FIRST for node in definition.node
    )
