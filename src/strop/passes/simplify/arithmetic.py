"""Arithmetic written more simply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from strop.core.contracts import TENSORFLOW, Context, Effort, Exactness, Pass, Unchanged
from strop.core.model import Form, Model

_OPTIMIZERS = ("arithmetic", "shape", "dependency", "pruning")


@final
@dataclass(frozen=True)
class Arithmetic(Pass):
    """Write arithmetic more simply.

    Before:  Add(x, x);   Reshape(Reshape(x));   Transpose(Transpose(x));   Sub(x, Neg(y))
    After:   Mul(2, x);   Reshape(x);            x;                        Add(x, y)

    Done by Grappler's arithmetic optimizer; see its list of rules in TensorFlow's `arithmetic_optimizer.cc`.
    """

    takes = frozenset({Form.GRAPH_DEF})
    requires = (TENSORFLOW,)
    exactness = Exactness.ROUNDING
    is_idempotent = True
    never_grows = True
    effort = Effort.THOROUGH  # engines but TensorFlow do as much when they load
    loads_tensorflow = True

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the rewritten graph."""
        from strop.graph.simplifying import simplified_by_grappler

        nothing = "no arithmetic can be written more simply"
        return simplified_by_grappler(self, model, context, _OPTIMIZERS, nothing=nothing)
