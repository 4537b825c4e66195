"""Common subexpressions, computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from strop.core.contracts import Context, Exactness, Unchanged
from strop.core.model import Model
from strop.passes.simplify import Rewriting

_OPTIMIZERS = ("common_subgraph_elimination", "pruning")


@final
@dataclass(frozen=True)
class MergeCommon(Rewriting):
    """Compute once what is computed several times.

    Before:  Relu(BiasAdd(x, b)) ── A;   Relu(BiasAdd(x, b)) ── B
    After:   Relu(BiasAdd(x, b)) ⇉ A, B

    Done by Grappler's common-subgraph elimination.
    """

    exactness = Exactness.EXACT
    never_grows = True

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the rewritten graph."""
        from strop.graph.simplifying import simplified_by_grappler

        nothing = "no two operations compute the same"
        return simplified_by_grappler(self, model, context, _OPTIMIZERS, nothing=nothing)
