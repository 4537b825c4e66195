"""Knowledge distillation: a smaller model, derived or the user's own, learns what the original answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from strop.core.contracts import Context, Unchanged
from strop.core.errors import ModelError, ParameterError, message
from strop.core.model import Form, Model
from strop.core.parameters import parameter
from strop.passes import METHODS, TaughtPass

if TYPE_CHECKING:
    from strop.train.distillation import Distillation
    from strop.train.students import Derived


@final
@dataclass(frozen=True)
class DistillStudent(TaughtPass):
    """Have a smaller model of the same inputs and outputs learn from data and from what the original answers.

    Before:  x ── Conv2D(64) ── Conv2D(128) ── Dense ── y
    After:   x ── Conv2D(45) ── Conv2D(90) ── Dense ── y'      with y' taught by y

    The student is derived from the model, with as many channels as a budget of multiply-accumulates leaves, or it is a
    .keras file of the user's. Of the layers within, features, attention or relations between samples can be taught
    too. Layers of the derived one that keep their size are listed.
    """

    place = 10
    price = "a smaller model may have too little room for what the original tells apart"

    student: str = parameter(
        "", doc="a .keras file to teach, as it is; without one a student is derived from the model"
    )
    macs: float = parameter(
        0.5,
        low=0.001,
        high=1.0,
        search=(0.5, 0.25),
        doc="the share of multiply-accumulates that the derived student may have, reached by fewer channels",
    )
    depth: float = parameter(
        1.0,
        low=0.0,
        high=1.0,
        doc="the share that the derived student has of the blocks that can be left out: residual branches, and layers "
        "that give the shape they are given",
    )
    separable: bool = parameter(
        False,
        search=(False, True),
        seldom=True,
        doc="have the derived student's convolutions be depthwise and pointwise ones",
    )
    method: str = parameter(
        "logits",
        choices=METHODS,
        search=("logits", "attention"),
        seldom=True,
        doc="what is taught: the answers alone ('logits'), or also what layers within give ('features'), where they are "
        "active ('attention'), or how they tell samples apart ('relational')",
    )
    temperature: float = parameter(
        2.0,
        low=0.01,
        doc="of the original's answers about classes: the higher, the more the unlikely ones count",
    )
    teacher_share: float = parameter(
        0.9,
        low=0.0,
        high=1.0,
        doc="of the loss where there are targets too; without them the original's answers are all of it",
    )
    layers: tuple[str, ...] = parameter(
        (),
        doc="layers within to compare, as 'student=teacher', or one name for both; chosen by the method if none is named",
    )
    epochs: int = parameter(30, low=0, doc="epochs of training; 0 for none")

    @classmethod
    def mistakes(cls, settings: Mapping[str, object]) -> list[str]:
        """Return what is wrong with `settings`, a line each: layers where none are compared, too."""
        found = super().mistakes(settings)
        if settings.get("layers") and settings.get("method", "logits") == "logits":
            found.append(
                f"'{cls.name}': layers are compared by the methods 'features', 'attention' and 'relational', and method is "
                "'logits': set it to one of them, or name no layers"
            )
        return found

    def apply(self, model: Model, context: Context) -> Model | Unchanged:
        """Return the student."""
        import keras

        from strop.graph.keras_files import opened

        keras.utils.set_random_seed(context.seed)  # layers are made anew, some with seeds
        original = opened(context.original, compiled=True)
        if self.student:
            student = self._given(model)
            told = _told_of(student, original, model)
        else:
            derived = self._derived(model)
            if isinstance(derived, Unchanged):
                return derived
            student, told = derived.model, _told(derived)
        if self.epochs:
            told |= self._taught(student, original, model, context)
        path = context.workspace / "model.keras"
        student.save(path, include_optimizer=False)
        left_alone = {**model.facts.get("left_alone", {}), **told.pop("left_alone", {})}
        return model.derive(self, Form.KERAS, path, **told, left_alone=left_alone)

    def _given(self, model: Model) -> Any:
        """Return the user's student."""
        from strop.graph.keras_files import load
        from strop.train.distillation import refuse_other_signature

        path = Path(self.student)
        if not path.is_file():
            raise ModelError(
                message(
                    f"there is no student at '{path}'.",
                    "Give a .keras file, or none to have a student derived.",
                )
            )
        student = load(path, allow=model.facts.get("allow", ()), compiled=True)
        refuse_other_signature(student, model.signature)
        return student

    def _derived(self, model: Model) -> Derived | Unchanged:
        """Return the student that is made of the model, or why there is none."""
        from strop.graph.keras_files import opened
        from strop.train.students import derive_student

        try:
            found = derive_student(
                opened(model), macs=self.macs, depth=self.depth, separable=self.separable,
                exclude=self.exclude, signature=model.sized,
            )  # fmt: skip
        except (ModelError, ParameterError) as error:  # nothing smaller can be made of this model
            return Unchanged("; ".join(str(error).rstrip(".").splitlines()[:2]))
        if not found.is_smaller:
            left = [f"{name}: {reason}" for name, reason in found.left_alone.items()]
            return Unchanged("; ".join(["no layer can have fewer channels", *left]))
        return found

    def _taught(
        self, student: Any, original: Any, model: Model, context: Context
    ) -> dict[str, Any]:
        """Teach the student, in place, and return what there is to tell of it."""
        from strop.train.distillation import distill

        found = distill(
            student, original, context.training, model.signature, self._distillation(),
            is_enough=self.enough(student, model, context), backup=context.backup, seed=context.seed,
            report=context.progress,
        )  # fmt: skip
        has_its_own = getattr(student, "compiled", False)
        return dict(self.told_of(found, None if has_its_own else context.original))

    def _distillation(self) -> Distillation:
        from strop.train.distillation import Distillation

        pairs = (name.partition("=") for name in self.layers)
        return Distillation(
            self.epochs,
            self.batch_size,
            self.learning_rate or None,
            self.teacher_share,
            augment=self.augment,
            method=self.method,
            temperature=self.temperature,
            weight=self.weight,
            layers=tuple((ours, theirs or ours) for ours, _, theirs in pairs),
        )


def _told(derived: Derived) -> dict[str, Any]:
    told: dict[str, Any] = {
        "channels": {name: f"{now} of {was}" for name, (now, was) in derived.channels.items()},
        "left_alone": dict(derived.left_alone),
    }
    if derived.separated:
        told["separated"] = dict.fromkeys(derived.separated, "depthwise and pointwise")
    if derived.left_out:
        told["left_out"] = dict.fromkeys(derived.left_out, "is not there any more")
    return told | _share(derived.macs)


def _told_of(student: Any, original: Any, model: Model) -> dict[str, Any]:
    from strop.train.students import macs_of

    counts = [macs_of(one, model.sized) for one in (student, original)]
    if counts[0] is None or not counts[1]:
        return {}
    return _share((counts[0], counts[1]))


def _share(macs: tuple[int, int] | None) -> dict[str, str]:
    if not macs or not macs[1]:
        return {}
    now, was = macs
    return {"macs": f"{now / was:.1%} of the original's: {now:,} of {was:,} a sample"}
