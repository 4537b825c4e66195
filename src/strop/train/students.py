"""Students: a smaller model of the same inputs and outputs, derived from a live Keras model that is to teach it.

It is made of the teacher's own layers, which may be narrower (fewer channels), fewer (blocks left out) and separable.
The weights are the teacher's: of the channels that stay, which are those whose kernels have the largest sums of
absolute values (Li et al., *Pruning filters for efficient ConvNets*, ICLR 2017, arXiv:1608.08710, section 3.1). One
share of the channels stays in all layers (the width multiplier of Howard et al., *MobileNets*, 2017,
arXiv:1704.04861, section 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core.errors import ModelError, ParameterError, message
from strop.core.signature import Signature
from strop.graph import macs as counting
from strop.graph.frozen import freeze
from strop.graph.keras_calls import Call, Calls, calls_of
from strop.graph.keras_models import by_name, signature_of
from strop.train.blocks import blocks_to_leave_out
from strop.train.coupling import (
    CONVOLUTIONS,
    MAKERS,
    RECURRENT,
    Coupling,
    coupling_of,
)
from strop.train.exclusions import Exclusion, exclusions
from strop.train.narrowing import narrowed, sizes_of_kernels

_NARROWEST = 1 / 64
_TRIES, _NEAR = 6, 0.95  # widths tried for a budget, and the share of it that is near enough


@dataclass(frozen=True)
class Derived:
    """A student.

    Attributes:
        model: The `keras.Model`, Functional, not compiled; all of it is trainable.
        width: The share of channels that stays, where they are free to go.
        channels: How many channels each layer has that was made narrower, and how many it had.
        separated: The convolutions that became separable.
        left_out: The layers that are not there any more.
        left_alone: The layers that were not treated as they were to be, with the reason.
        macs: Multiply-accumulates a sample, the student's and the teacher's; None where they can't be told.
    """

    model: Any
    width: float
    channels: Mapping[str, tuple[int, int]]
    separated: tuple[str, ...]
    left_out: tuple[str, ...]
    left_alone: Mapping[str, str]
    macs: tuple[int, int] | None

    @property
    def is_smaller(self) -> bool:
        """Whether there is anything that was made smaller."""
        return bool(self.channels or self.separated or self.left_out)


def derive_student(
    model: Any,
    *,
    width: float = 0.5,
    macs: float | None = None,
    depth: float = 1.0,
    separable: bool = False,
    exclude: Sequence[Exclusion] = (),
    signature: Signature | None = None,
) -> Derived:
    """Return a smaller model of the same inputs and outputs as `model`, with weights of `model`'s to begin with.

    What is added keeps as many channels as what it is added to. Layers whose channels can't be told apart (grouped
    convolutions, gates of recurrent layers, attention, classes that are not Keras' own), and what goes into them, keep
    their size and are listed. Models within `model` are taken apart, and layers that were frozen are taught again.

    Args:
        model: A built Functional or Sequential model; it stays as it is.
        width: The share of channels that stays, in (0, 1].
        macs: The share of multiply-accumulates to come to at most, in (0, 1]; `width` is then the widest that does.
        depth: The share that stays of the blocks that can be left out, in [0, 1]. These are the branches of residual
            blocks beside which nothing is computed, and layers that give what has the shape of what they are given.
            Those go first of whose shape there are most.
        separable: Whether convolutions become depthwise and pointwise ones, but for those that read an input.
        exclude: Layers to leave as they are, as in `strop.train.kernels.kernels_of`.
        signature: The model's, with sizes where the model leaves them open, for counting; None for its own.

    Raises:
        ParameterError: If an argument is out of its range, or multiply-accumulates can't be counted, or not be
            brought to so few.
        ModelError: If the model is not built, or is neither Functional nor Sequential, or a layer can't be copied.
        UnknownNameError: If a name in `exclude` is no layer's and no class's.
    """
    mistakes = _mistakes(width, macs, depth)
    if mistakes:
        raise ParameterError("\n".join(mistakes))
    own = signature_of(model)
    calls = calls_of(model)
    if calls is None:
        raise ModelError(
            message(
                f"the layers of the model '{model.name}' are called by code of its own class, {type(model).__name__}, "
                "so no smaller ones can take their places.",
                "Of a Functional or a Sequential model a student can be derived; any model can teach one of yours.",
                next_step="keras.Model(inputs, outputs)",
            )
        )
    plan = _plan(model, calls, signature or own, depth, separable, exclude)
    return plan.derived(width) if macs is None else _within_budget(plan, macs)


def macs_of(model: Any, signature: Signature) -> int | None:
    """Return the multiply-accumulates of a live model for one sample; None where they can't be told.

    Args:
        model: A built `keras.Model`.
        signature: Its own, or with sizes where the model leaves them open.
    """
    graph = freeze(
        lambda *tensors: by_name(model, tensors, signature),
        signature,
        batch=None if signature.batch else 1,
    )
    found = counting.of_graph_def(graph.definition)
    return None if found is None else found // (signature.batch or 1)


def _mistakes(width: float, macs: float | None, depth: float) -> list[str]:
    found = []
    if not 0 < width <= 1:
        found.append(f"width must lie in (0, 1], not {width!r}")
    if macs is not None and not 0 < macs <= 1:
        found.append(f"macs must lie in (0, 1], not {macs!r}")
    if not 0 <= depth <= 1:
        found.append(f"depth must lie in [0, 1], not {depth!r}")
    return found


def _within_budget(plan: _Plan, share: float) -> Derived:
    """Return the widest student that was found to come to a share of the multiply-accumulates at most."""
    whole = plan.macs
    if whole is None:
        raise ParameterError(
            message(
                "the model's multiply-accumulates can't be counted, as where sizes are free.",
                "Fix the sizes of its inputs, or say how wide the student is to be.",
                next_step="width=0.5, macs=None",
            )
        )
    budget = share * whole
    wide = (1.0, whole)
    if share == 1 or plan.separable or plan.left_out:
        best, most = _tried(plan, 1.0)
        if most <= budget:
            return best
        wide = (1.0, most)
    narrow: tuple[float, int] | None = None
    width = math.sqrt(
        budget / wide[1]
    )  # most products have a share of both what they read and what they make
    for _ in range(_TRIES):
        found, macs = _tried(plan, width)
        if macs <= budget:
            best, narrow = found, (width, macs)
            if macs >= _NEAR * budget:
                break
        else:
            wide = (width, macs)
        if narrow is None and width == _NARROWEST:
            raise ParameterError(_too_few(share, macs / whole))
        width = _NARROWEST if narrow is None else _between(narrow, wide, budget)
    return best


def _too_few(share: float, least: float) -> str:
    offered = math.ceil(100 * least) / 100
    return message(
        f"no student comes to {share:.0%} of the multiply-accumulates: with one channel wherever there can be one, "
        f"{least:.1%} are left.",
        "What keeps its size decides that.",
        # All of them would be the model itself.
        next_step=f"macs={offered:g}" if offered < 1 else 'student="smaller.keras"',
    )


def _tried(plan: _Plan, width: float) -> tuple[Derived, int]:
    found = plan.derived(width)
    assert found.macs is not None  # noqa: S101 - a smaller model of the same kinds of layers is counted as well
    return found, found.macs[0]


def _between(narrow: tuple[float, int], wide: tuple[float, int], budget: float) -> float:
    """Return the width at which a budget is expected to be met: products go about as a power of it."""
    (low, least), (high, most) = narrow, wide
    share = math.log(budget / max(least, 1)) / math.log(most / max(least, 1))
    return float(low * (high / low) ** min(max(share, 0.1), 0.9))


@dataclass(frozen=True)
class _Plan:
    """What is to be done to a model, at any width.

    Attributes:
        teacher: The model.
        counted: Its signature, for counting.
        macs: Its multiply-accumulates; None where they can't be told.
        calls: Those that stay.
        coupling: Which of their channels go together.
        importance: Of each unit of channels.
        separable: The names of the convolutions to separate, by their layers' `id`.
        left_out: The names of the layers that don't stay.
        left: The layers that are not treated, with the reason, whatever the width.
        kept: Those that keep their channels, with the reason.
    """

    teacher: Any
    counted: Signature
    macs: int | None
    calls: Calls
    coupling: Coupling
    importance: NDArray[np.float64]
    separable: Mapping[int, str]
    left_out: tuple[str, ...]
    left: Mapping[str, str]
    kept: Mapping[str, str]

    def derived(self, width: float) -> Derived:
        """Return the student of a width."""
        stays = self.coupling.kept(width, self.importance)
        model = narrowed(self.teacher, self.calls, self.coupling, stays, separable=self.separable)
        made = {call.name: self.coupling.made[id(call.operation)] for call in _makers(self)}
        counts = {name: (int(stays[places].sum()), len(places)) for name, places in made.items()}
        macs = None if self.macs is None else macs_of(model, self.counted)
        return Derived(
            model,
            width,
            {name: (now, was) for name, (now, was) in counts.items() if now < was},
            tuple(self.separable.values()),
            self.left_out,
            {**self.left, **(self.kept if width < 1 else {})},
            None if macs is None or self.macs is None else (macs, self.macs),
        )


def _makers(plan: _Plan) -> list[Call]:
    """Return the first call of each layer that makes channels of its own and may be treated."""
    return _first_calls(plan.calls, plan.coupling)


def _first_calls(calls: Calls, coupling: Coupling) -> list[Call]:
    found: dict[int, Call] = {}
    for call in calls.calls:
        if call.kind in MAKERS and id(call.operation) not in coupling.whole:
            found.setdefault(id(call.operation), call)
    return list(found.values())


def _plan(
    model: Any,
    calls: Calls,
    counted: Signature,
    depth: float,
    separable: bool,
    exclude: Sequence[Exclusion],
) -> _Plan:
    excluded = exclusions(exclude, calls.chains)
    whole = {id(c.operation): why for c in calls.calls if (why := excluded(c.chain))}
    blocks = blocks_to_leave_out(calls, depth, whole)
    shorter = calls.without({block.end: block.start for block in blocks})
    coupling = coupling_of(shorter, whole)
    makers = _first_calls(shorter, coupling)
    importance = coupling.importance({id(c.operation): sizes_of_kernels(c) for c in makers})
    there = {id(call.operation) for call in shorter.calls}
    gone = [c for c in calls.calls if id(c.operation) not in there and c.has_weights]
    apart, left = _apart(makers, coupling) if separable else ({}, {})
    for call in shorter.calls:
        if id(call.operation) in whole and call.has_weights:
            left[call.name] = whole[id(call.operation)]
    return _Plan(
        model,
        counted,
        macs_of(model, counted),
        shorter,
        coupling,
        importance,
        apart,
        tuple(dict.fromkeys(call.name for call in gone)),
        left,
        _kept(shorter, coupling),
    )


def _kept(calls: Calls, coupling: Coupling) -> dict[str, str]:
    """Return the layers with weights that keep their channels, with the reason."""
    found: dict[str, str] = {}
    for call in calls.calls:
        layer = call.operation
        why = coupling.whole.get(id(layer))
        if why is None and call.kind in MAKERS | RECURRENT:
            why = coupling.reason(layer)
        if why and call.has_weights:
            found.setdefault(call.name, why)
    return found


def _apart(makers: Sequence[Call], coupling: Coupling) -> tuple[dict[int, str], dict[str, str]]:
    """Return the convolutions to separate, by their layers' `id`, and those that can't be, with the reason."""
    found: dict[int, str] = {}
    left: dict[str, str] = {}
    for call in makers:
        if call.kind in CONVOLUTIONS and math.prod(call.operation.kernel_size) > 1:
            why = _inseparable(call)
            if why:
                left[call.name] = f"not made separable: {why}"
            else:
                found[id(call.operation)] = call.name
    return found, left


def _inseparable(call: Call) -> str | None:
    layer = call.operation
    if call.kind == "Conv3D":
        return "Keras has no separable convolution of three axes"
    if call.tensors[0].maker is None:
        return "it reads an input, whose few channels say too little each by itself"
    if len(set(layer.strides)) > 1:
        return "its strides differ"
    if layer.padding not in ("valid", "same"):
        return f"its padding is '{layer.padding}'"
    return None
