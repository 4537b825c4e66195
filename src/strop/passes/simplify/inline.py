"""Functions that a graph calls, written out where they are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from strop.core.contracts import Context, Exactness, Unchanged
from strop.core.model import Model
from strop.passes.simplify import Rewriting

if TYPE_CHECKING:
    from strop.graph.simplifying import Ends

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})


@final
@dataclass(frozen=True)
class Inline(Rewriting):
    """Write functions out where they are called, so that the other rewritings see what is in them.

    Before:  x ── PartitionedCall(f);   f(a) = Relu(BiasAdd(a, b))
    After:   x ── BiasAdd(b) ── Relu

    Done by Grappler's function optimizer. What TensorFlow 2's loops and branches call stays: they decide at each call
    what runs.
    """

    exactness = Exactness.EXACT

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the graph without calls."""
        from strop.graph.simplifying import simplified

        nothing = "no function is called"
        return simplified(self, model, context, _inline, nothing=nothing)


def _inline(definition: Any, ends: Ends) -> bool:
    from tensorflow.python.framework.convert_to_constants import disable_lower_using_switch_merge

    from strop.graph.grappler import grappled

    functions = {function.signature.name for function in definition.library.function}
    calls = [node for node in definition.node if node.op in _CALLS or node.op in functions]
    if not calls:
        return False
    found = grappled(
        disable_lower_using_switch_merge(definition), sorted(ends.nodes), ("function",)
    )
    left = sum(node.op in _CALLS or node.op in functions for node in found.node)
    if left == len(calls):
        return False
    definition.CopyFrom(found)
    return True
