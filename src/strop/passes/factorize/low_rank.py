"""Low-rank factorization: layers become several thinner ones, which are taught to answer as one again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from strop.core.contracts import Context, Unchanged
from strop.core.model import Form, Model
from strop.core.parameters import parameter
from strop.passes import TaughtPass


@final
@dataclass(frozen=True)
class FactorizeLowRank(TaughtPass):
    """Write Dense, Embedding and Conv2D layers as products of low rank, where that pays, and teach the whole again.

    Before:  x ── Dense(W) ── y
    After:   x ── Dense(A) ── Dense(B) ── y      with W ≈ A·B, and A and B together smaller than W

    Before:  x ── Conv2D(W, 3 × 3) ── y
    After:   x ── Conv2D(1 × 1) ── Conv2D(3 × 3, fewer channels) ── Conv2D(1 × 1) ── y      (of kind 'tucker')

    A layer pays that saves a tenth of its multiply-accumulates and of its weights, an Embedding by its weights alone.
    """

    price = (
        "more layers of fewer products each: where calling a layer is what takes the time, slower"
    )

    energy: float = parameter(
        0.9,
        low=0.01,
        high=1.0,
        search=(0.8, 0.9, 0.95),
        doc="the share of each kernel's sum of squares to keep",
    )
    kind: str = parameter(
        "tucker",
        choices=("tucker", "channel", "spatial"),
        doc="what convolutions become: 'tucker' 1x1, one of the kernel's size, and 1x1; 'channel' one of the kernel's "
        "size, and 1x1; 'spatial' one down, and one across",
    )

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the factored model."""
        from strop.graph.keras_files import opened
        from strop.train.factorization import factorize

        original = opened(model, compiled=True)
        found = factorize(original, self.energy, kind=self.kind, exclude=self.exclude)
        if not found.layers:
            left = [f"{name}: {reason}" for name, reason in found.left_alone.items()]
            return Unchanged("; ".join(["there is no layer whose factors would pay", *left]))
        if self.epochs:
            self.teach(found.model, original, model, context)
        path = context.workspace / "model.keras"
        found.model.save(path)
        ranks = {name: str(factors) for name, factors in found.layers.items()}
        left_alone = {**model.facts.get("left_alone", {}), **found.left_alone}
        return model.derive(self, Form.KERAS, path, ranks=ranks, left_alone=left_alone)
