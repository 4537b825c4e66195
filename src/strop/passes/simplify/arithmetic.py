"""Arithmetic written more simply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from strop.core.contracts import Context, Exactness, Unchanged
from strop.core.model import Model
from strop.passes.simplify import Rewriting

_OPTIMIZERS = ("arithmetic", "shape", "dependency", "pruning")


@final
@dataclass(frozen=True)
class Arithmetic(Rewriting):
    """Write arithmetic more simply.

    Before:  Add(x, x);   Reshape(Reshape(x));   Transpose(Transpose(x));   Sub(x, Neg(y))
    After:   Mul(2, x);   Reshape(x);            x;                        Add(x, y)

    Done by Grappler's arithmetic optimizer; see its list of rules in TensorFlow's `arithmetic_optimizer.cc`.
    """

    exactness = Exactness.ROUNDING
    never_grows = True

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the rewritten graph."""
        from strop.graph.simplifying import simplified_by_grappler

        nothing = "no arithmetic can be written more simply"
        return simplified_by_grappler(self, model, context, _OPTIMIZERS, nothing=nothing)
