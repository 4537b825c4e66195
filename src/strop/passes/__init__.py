"""Techniques: one a file; the file's name is its name in recipes, on the command line and in reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strop.core.contracts import KERAS, TENSORFLOW, Context, Effort, Exactness, Needs, Pass
from strop.core.errors import DivergedError, message
from strop.core.model import Form, Model
from strop.core.parameters import parameter

if TYPE_CHECKING:
    from strop.train.fine_tuning import FineTuned

AUGMENTATIONS = ("flip", "shift", "mix", "cut")
"""What `strop.train.augmentation` does to samples; told here without a framework."""
METHODS = ("logits", "features", "attention", "relational")
"""What `strop.train.hints` has the original teach; told here without a framework."""
_USUAL_RATE = 0.001
_ENOUGH = 0.5  # of what quality may drop
_AGAINST_DIVERGING = "A smaller learning rate, or asking for less at once, may do."


@dataclass(frozen=True)
class TaughtPass(Pass):
    """A pass that changes a Keras model while it is taught again; what all of them have in common."""

    takes = frozenset({Form.KERAS})
    needs = Needs.TRAINING
    requires = (TENSORFLOW, KERAS)
    exactness = Exactness.LOSSY
    effort = Effort.THOROUGH
    loads_tensorflow = True

    epochs: int = parameter(5, low=0, doc="epochs of training; 0 for none")
    batch_size: int = parameter(64, low=1, doc="samples a step")
    # What a model was compiled with is often the rate that its training ended at, which teaches nothing any more.
    learning_rate: float = parameter(
        _USUAL_RATE,
        low=0.0,
        doc="at the beginning, falling along a cosine, in the optimizer that the model was compiled with, or else Adam; "
        "0 for that optimizer as it is",
    )
    teacher_share: float = parameter(
        0.5,
        low=0.0,
        high=1.0,
        doc="of the loss where there are targets too; without them the original's answers are all of it",
    )
    augment: tuple[str, ...] = parameter(
        (),
        doc="how samples are changed at each step: 'flip' mirrors images left to right, 'shift' moves them by up to an "
        "eighth, 'mix' blends each sample with another one, 'cut' has a part of each image come from another one",
    )
    method: str = parameter(
        "logits",
        choices=METHODS,
        doc="what the original teaches: its answers alone ('logits'), or also what its layers within give ('features'), "
        "where they are active ('attention'), or how they tell samples apart ('relational')",
    )
    weight: float = parameter(
        1.0, low=0.0, doc="what the layers within count, the answers counting 1"
    )
    exclude: tuple[str, ...] = parameter(
        (), doc="layers to leave alone: names, names of classes, or functions as 'module:name'"
    )

    @classmethod
    def mistakes(cls, settings: Mapping[str, object]) -> list[str]:
        """Return what is wrong with `settings`, a line each: ways to change samples that there are not, too."""
        found, given = super().mistakes(settings), settings.get("augment", ())
        if isinstance(given, tuple):
            found += [
                f"'{cls.name}': augment must name some of {', '.join(AUGMENTATIONS)}, not {kind!r}"
                for kind in given
                if kind not in AUGMENTATIONS
            ]
        if settings.get("weight", 1.0) != 1.0 and settings.get("method", METHODS[0]) == METHODS[0]:
            found.append(
                f"'{cls.name}': weight is that of what layers within give, of which the method '{METHODS[0]}' teaches nothing: "
                "set method to another, or leave out weight"
            )
        return found

    def teach(
        self,
        live: Any,
        model: Model,
        context: Context,
        *,
        callbacks: Sequence[Any] = (),
        keep_from: int = 0,
    ) -> dict[str, Any]:
        """Teach `live`, in place, by what is not for judging and by what the original answers; see `strop.train.fine_tuning`.

        It ends early where that is enough; see `enough`.

        Args:
            live: The `keras.Model` that is being changed.
            model: The pass's, whose signature it has.
            context: The pass's.
            callbacks: What changes it meanwhile.
            keep_from: The first epoch after which it is not changed any more.

        Returns:
            What there is to tell of it, for the facts of what the pass makes.

        Raises:
            DivergedError: If training diverged before there were any weights to keep.
        """
        from strop.graph.keras_files import opened
        from strop.train.fine_tuning import FineTuning, fine_tune
        from strop.train.pruning import keep_pruned

        # What was pruned before, and is not what this pass changes, keeps its zeros.
        changed = [kernel for hook in callbacks for kernel in getattr(hook, "kernels", ())]
        kept = keep_pruned(live, changed)
        if kept.kernels:
            callbacks = [kept, *callbacks]
        original = opened(context.original, compiled=True)
        settings = FineTuning(
            self.epochs,
            self.batch_size,
            self.learning_rate or None,
            self.teacher_share,
            augment=self.augment,
            method=self.method,
            weight=self.weight,
        )
        tuned = fine_tune(
            live, context.training, model.signature, settings,
            teacher=original, compiled=original, callbacks=callbacks, keep_from=keep_from,
            is_enough=self.enough(live, model, context), backup=context.backup, seed=context.seed,
            report=context.progress,
        )  # fmt: skip
        return self.told_of(tuned, context.original)

    def enough(self, live: Any, model: Model, context: Context) -> Callable[[], bool]:
        """Return what says whether `live` may be taught no more: for certain it loses no more than half of what it may.

        Args:
            live: The `keras.Model` that is being taught.
            model: The pass's, whose signature it has.
            context: The pass's.
        """
        from strop.train.lessons import answers_of

        def is_enough() -> bool:
            found = context.judge(lambda samples: answers_of(live, samples, model.signature))
            return found.drop.high <= context.goal.max_drop * _ENOUGH

        return is_enough

    def told_of(self, tuned: FineTuned, original: Model | None) -> dict[str, Any]:
        """Return what there is to tell of teaching, for the facts of what the pass makes.

        Args:
            tuned: What became of it.
            original: The model whose loss was to be taken; None for that of the one that was taught.

        Raises:
            DivergedError: If training diverged before there were any weights to keep.
        """
        from strop.graph.keras_files import lost_loss

        told: dict[str, Any] = {"taught_by": tuned.taught_by}
        if lost := original and lost_loss(original):
            told["taught_by"] += f" (its own loss, '{lost}', can't be had of its file)"
        if tuned.compared:
            told["compared"] = {ours: f"with '{theirs}'" for ours, theirs in tuned.compared}
        if not tuned.has_diverged:
            return told
        text = f"training diverged: its loss or its weights were no numbers after {len(tuned.losses)} epochs."
        if tuned.best is None:
            raise DivergedError(message(text, _AGAINST_DIVERGING, next_step=self._slower))
        return {**told, "diverged": f"{text} {_AGAINST_DIVERGING}"}

    @property
    def _slower(self) -> str:
        return f"learning_rate = {(self.learning_rate or _USUAL_RATE) / 10:g}"
