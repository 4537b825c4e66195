"""What constants decide, computed beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from strop.core.contracts import TENSORFLOW, Context, Effort, Exactness, Pass, Unchanged
from strop.core.model import Form, Model

_OPTIMIZERS = ("constfold", "loop", "dependency", "pruning", "constfold")


@final
@dataclass(frozen=True)
class FoldConstants(Pass):
    """Compute what depends on constants alone, and take the branch that a constant decides.

    Before:  Mul(x, Mul(γ, Rsqrt(σ² + ε)));   training(Const: false) ── Switch ⇉ Merge
    After:   Mul(x, Const)

    Done by Grappler's constant folding.
    """

    takes = frozenset({Form.GRAPH_DEF})
    requires = (TENSORFLOW,)
    exactness = Exactness.ROUNDING
    is_idempotent = True
    never_grows = True
    effort = Effort.THOROUGH  # engines but TensorFlow do as much when they load
    loads_tensorflow = True

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the graph with its constants folded."""
        from strop.graph.simplifying import simplified_by_grappler

        nothing = "nothing depends on constants alone"
        return simplified_by_grappler(self, model, context, _OPTIMIZERS, nothing=nothing)
