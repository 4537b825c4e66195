"""Magnitude pruning: the smallest weights become zero while the others are taught to do without them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from strop.core.contracts import Context, Unchanged
from strop.core.model import Form, Model
from strop.core.parameters import parameter
from strop.numerics.schedules import ConstantSparsity, PolynomialDecay, Schedule
from strop.numerics.sparsity import pattern_named
from strop.passes import TaughtPass

if TYPE_CHECKING:
    from strop.train.pruning import Pruning

_POWERS = {"cubic": 3.0, "linear": 1.0}
_WHAT_ZEROS_BRING = "smaller zipped; whether an engine skips them too, strop optimize finds out"
_CHOICES = 50  # of masks, on the way: each drops so little that a few steps make up for it


@final
@dataclass(frozen=True)
class PruneMagnitude(TaughtPass):
    """Make the smallest weights zero, more and more of them, while the model is taught by data and by the original.

    Before:  x ── Conv2D(W) ── y
    After:   x ── Conv2D(W ∘ M) ── y      with M zero for the share `sparsity` of the weights, and one for the others

    Biases and normalizations are kept whole. The zeros take no room in a zipped file.
    """

    place = 30
    only_shrinks_weights = True
    price = (
        "zeros are computed with like any weight, but where prune.litert_sparse finds a kernel "
        "that skips them: smaller zipped, not faster"
    )

    sparsity: float = parameter(
        0.5,
        low=0.0,
        high=0.999_999,
        search=(0.5, 0.7, 0.8),
        doc="the share of weights to drop; a pattern N:M says it by itself",
    )
    pattern: str = parameter(
        "unstructured",
        doc="'unstructured'; blocks over a kernel's last axes, such as '4x1', which LiteRT skips in dense layers "
        "(prune.litert_sparse); or weights that stay of each group along the input channels, such as '2:4'",
    )
    schedule: str = parameter(
        "cubic",
        choices=("cubic", "linear", "constant"),
        doc="how the share grows from `begin` to `end`: fast and then slowly ('cubic'), evenly ('linear'), or all at once "
        "('constant')",
    )
    begin: float = parameter(
        0.0, low=0.0, high=1.0, doc="when weights begin to go, as a share of the training"
    )
    end: float = parameter(
        0.5,
        low=0.0,
        high=1.0,
        doc="when the last go, as a share of the training; in the rest those that stay make up for them",
    )
    frequency: int = parameter(
        0, low=0, doc="steps from one choice of weights to the next; 0 for some fifty choices"
    )
    ranking: str = parameter(
        "layer_adaptive",
        choices=("layer", "layer_adaptive", "global", "random"),
        search=("layer_adaptive", "layer"),
        seldom=True,
        doc="against which others weights are ranked: 'layer' those of the layer; 'layer_adaptive' all, by their share "
        "of their layer; 'global' all, by magnitude; or by chance. A pattern N:M ranks within its groups",
    )

    @classmethod
    def mistakes(cls, settings: Mapping[str, object]) -> list[str]:
        """Return what is wrong with `settings`, a line each: a pattern that spells none, an end before the begin, too."""
        found = super().mistakes(settings)
        begin, end = (settings.get(name, cls.defaults()[name]) for name in ("begin", "end"))
        if isinstance(begin, float) and isinstance(end, float) and begin > end:
            found.append(f"'{cls.name}': begin ({begin:g}) must not lie behind end ({end:g})")
        text = settings.get("pattern", "unstructured")
        if isinstance(text, str):
            try:
                pattern = pattern_named(text)
            except ValueError as error:
                return [*found, f"'{cls.name}': pattern: {error}"]
            usual = cls.defaults()["sparsity"]
            if pattern.sparsity and settings.get("sparsity", usual) not in (
                usual,
                pattern.sparsity,
            ):
                found.append(
                    f"'{cls.name}': the pattern {text} comes to a sparsity of {pattern.sparsity:g}, and not of "
                    f"{settings['sparsity']}"
                )
            if pattern.sparsity is not None and settings.get("ranking") == "global":
                found.append(
                    f"'{cls.name}': a global ranking has no say in the pattern {text}: as many weights go in every group"
                )
        return found

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the pruned model."""
        from strop.graph.keras_files import opened

        live = opened(model)
        pruning, keep_from = self._pruning(live, model, context)
        if not pruning.kernels:
            left = [f"{name}: {reason}" for name, reason in pruning.left_alone.items()]
            return Unchanged("; ".join(["no layer has weights to drop", *left]))
        told = {}
        if self.epochs:
            told = self.teach(live, model, context, callbacks=[pruning], keep_from=keep_from)
        # At once, or where the weights kept are of an epoch before the last choice of masks.
        pruning.complete()
        path = context.workspace / "model.keras"
        live.save(path)
        report = pruning.report()
        left_alone = {**model.facts.get("left_alone", {}), **report.left_alone}
        return model.derive(
            self, Form.KERAS, path,
            sparsity=dict(report.sparsity), left_alone=left_alone, zeros=_WHAT_ZEROS_BRING, **told,
        )  # fmt: skip

    def _pruning(self, live: Any, model: Model, context: Context) -> tuple[Pruning, int]:
        """Return what prunes, and the first epoch (from 0) at whose end all is dropped."""
        from strop.train.lessons import held_out_of
        from strop.train.pruning import Pruning

        pattern = pattern_named(self.pattern)
        is_of_groups = pattern.sparsity is not None
        target = self.sparsity if pattern.sparsity is None else pattern.sparsity
        # Rather too few: then dropping ends early, and never after the epochs meant for it.
        steps = 1
        if self.epochs:
            count, batch = len(context.training), model.signature.batch or self.batch_size
            steps = max((count - held_out_of(count, model.signature)) // batch, 1)
        first, last = (int(steps * self.epochs * share) for share in (self.begin, self.end))
        schedule = self._schedule(target, first, last)
        pruning = Pruning(
            live,
            schedule,
            pattern=pattern,
            ranking="layer" if is_of_groups and self.ranking == "layer_adaptive" else self.ranking,
            exclude=self.exclude,
            seed=context.seed,
        )
        done = first if self.schedule == "constant" else last
        # In the last epoch at the latest: what is kept of none can't be kept at all.
        return pruning, min(math.ceil((done + 1) / steps), max(self.epochs, 1)) - 1

    def _schedule(self, target: float, first: int, last: int) -> Schedule:
        """Return when which share goes, for a first and a last step."""
        frequency = self.frequency or max((last - first) // _CHOICES, 1)
        if self.schedule == "constant":
            return ConstantSparsity(target, first, last, frequency)
        power = _POWERS[self.schedule]
        return PolynomialDecay(0.0, target, first, last, power, frequency)
