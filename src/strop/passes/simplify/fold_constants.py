"""What constants decide, computed beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from strop.core.contracts import Context, Exactness, Unchanged
from strop.core.model import Model
from strop.passes.simplify import Rewriting

_OPTIMIZERS = ("constfold", "loop", "dependency", "pruning", "constfold")


@final
@dataclass(frozen=True)
class FoldConstants(Rewriting):
    """Compute what depends on constants alone, and take the branch that a constant decides.

    Before:  Mul(x, Mul(γ, Rsqrt(σ² + ε)));   training(Const: false) ── Switch ⇉ Merge
    After:   Mul(x, Const)

    Done by Grappler's constant folding.
    """

    exactness = Exactness.ROUNDING
    never_grows = True

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the graph with its constants folded."""
        from strop.graph.simplifying import simplified_by_grappler

        nothing = "nothing depends on constants alone"
        return simplified_by_grappler(self, model, context, _OPTIMIZERS, nothing=nothing)
