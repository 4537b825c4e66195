"""Common subexpressions, computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from strop.core.contracts import TENSORFLOW, Context, Effort, Exactness, Pass, Unchanged
from strop.core.model import Form, Model

_OPTIMIZERS = ("common_subgraph_elimination", "pruning")


@final
@dataclass(frozen=True)
class MergeCommon(Pass):
    """Compute once what is computed several times.

    Before:  Relu(BiasAdd(x, b)) ── A;   Relu(BiasAdd(x, b)) ── B
    After:   Relu(BiasAdd(x, b)) ⇉ A, B

    Done by Grappler's common-subgraph elimination.
    """

    takes = frozenset({Form.GRAPH_DEF})
    requires = (TENSORFLOW,)
    exactness = Exactness.EXACT
    is_idempotent = True
    never_grows = True
    effort = Effort.THOROUGH  # engines but TensorFlow do as much when they load
    loads_tensorflow = True

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the rewritten graph."""
        from strop.graph.simplifying import simplified_by_grappler

        nothing = "no two operations compute the same"
        return simplified_by_grappler(self, model, context, _OPTIMIZERS, nothing=nothing)
