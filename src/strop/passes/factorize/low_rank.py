"""Low-rank factorization: layers become several thinner ones, which are taught to answer as one again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from strop.core.contracts import Context, Unchanged
from strop.core.model import Form, Model
from strop.core.parameters import parameter
from strop.passes import TaughtPass

if TYPE_CHECKING:
    from strop.train.factorization import Factorized


@final
@dataclass(frozen=True)
class FactorizeLowRank(TaughtPass):
    """Write Dense, Embedding and convolutional layers as products of low rank, where that pays, and teach the whole again.

    Before:  x ── Dense(W) ── y
    After:   x ── Dense(A) ── Dense(B) ── y      with W ≈ A·B, and A and B together smaller than W

    Before:  x ── Conv2D(W, 3 × 3) ── y
    After:   x ── Conv2D(1 × 1) ── Conv2D(3 × 3, fewer channels) ── Conv2D(1 × 1) ── y      (of kind 'tucker')

    A layer pays that saves a tenth of its multiply-accumulates and of its weights, a convolution a third, an Embedding by
    its weights alone.
    With a budget (`macs` below 1) ranks go by what each layer's factors do to the answers, measured on samples.
    """

    place = 20
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
    macs: float = parameter(
        1.0,
        low=0.01,
        high=1.0,
        search=(1.0, 0.7, 0.5),
        doc="the share of multiply-accumulates that the layers that can be factored may have left in all, below 1 in "
        "place of `energy`: those give most that the answers need least",
    )
    kind: str = parameter(
        "tucker",
        choices=("tucker", "channel", "spatial"),
        doc="what convolutions become: 'tucker' 1x1, one of the kernel's size, and 1x1; 'channel' one of the kernel's "
        "size, and 1x1; 'spatial' one down, and one across",
    )

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the factored model."""
        import keras

        from strop.graph.keras_files import opened

        keras.utils.set_random_seed(context.seed)  # layers are made anew, some with seeds
        original = opened(model, compiled=True)
        found = self._factorized(original, model, context)
        if not found.layers:
            left = [f"{name}: {reason}" for name, reason in found.left_alone.items()]
            return Unchanged("; ".join(["there is no layer whose factors would pay", *left]))
        told = {}
        if self.epochs:
            told = self.teach(found.model, model, context)
        path = context.workspace / "model.keras"
        found.model.save(path)
        ranks = {name: str(factors) for name, factors in found.layers.items()}
        left_alone = {**model.facts.get("left_alone", {}), **found.left_alone}
        return model.derive(self, Form.KERAS, path, ranks=ranks, left_alone=left_alone, **told)

    def _factorized(self, original: Any, model: Model, context: Context) -> Factorized:
        from strop.train.factorization import errors_against, factorize

        if self.macs == 1:
            return factorize(original, self.energy, kind=self.kind, exclude=self.exclude)
        error_of = errors_against(original, context.calibration, model.signature)
        return factorize(
            original, macs=self.macs, kind=self.kind, exclude=self.exclude, error_of=error_of
        )
