"""Students: a smaller model of the same inputs and outputs, derived from a live Keras model that is to teach it.

It is made of the teacher's own layers, which may be narrower (fewer channels), fewer (blocks left out) and separable.
The weights are the teacher's: of the channels that stay, which are those whose kernels have the largest sums of
absolute values (Li et al., *Pruning filters for efficient ConvNets*, ICLR 2017, arXiv:1608.08710, section 3.1). One
share of the channels stays in all layers (the width multiplier of Howard et al., *MobileNets*, 2017,
arXiv:1704.04861, section 3.3).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from strop.core.errors import ModelError, ParameterError, message
from strop.core.signature import Signature
from strop.graph import macs as counting
from strop.graph.frozen import freeze
from strop.graph.keras_calls import Call, Calls, Tensor, calls_of, functional_of
from strop.graph.keras_models import by_name, signature_of
from strop.numerics.separable import separated
from strop.train.coupling import (
    CONVOLUTIONS,
    DENSE,
    DEPTHWISE,
    EMBEDDINGS,
    MAKERS,
    NORMALIZATIONS,
    PASSING,
    RECURRENT,
    SEPARABLE,
    TRANSPOSED,
    Coupling,
    coupling_of,
)
from strop.train.exclusions import Exclusion, exclusions
from strop.train.rebuilding import alike, copy_state

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
    return message(
        f"no student comes to {share:.0%} of the multiply-accumulates: with one channel wherever there can be one, "
        f"{least:.1%} are left.",
        "What keeps its size decides that.",
        next_step=f"macs={math.ceil(100 * least) / 100:g}",
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
        model = _Building(self.calls, self.coupling, stays, self.separable).model(self.teacher)
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
    blocks = _blocks_to_leave_out(calls, depth, whole)
    shorter = calls.without({block.end: block.start for block in blocks})
    coupling = coupling_of(shorter, whole)
    makers = _first_calls(shorter, coupling)
    importance = coupling.importance({id(c.operation): _sizes_of_kernels(c) for c in makers})
    there = {id(call.operation) for call in shorter.calls}
    gone = [c for c in calls.calls if id(c.operation) not in there and _has_weights(c)]
    apart, left = _apart(makers, coupling) if separable else ({}, {})
    for call in shorter.calls:
        if id(call.operation) in whole and _has_weights(call):
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
        if why and _has_weights(call):
            found.setdefault(call.name, why)
    return found


def _has_weights(call: Call) -> bool:
    return bool(getattr(call.operation, "weights", None))


def _sizes_of_kernels(call: Call) -> NDArray[np.float64]:
    """Return the sum of absolute weights of each channel that a layer makes."""
    name, axis = next(
        (name, axis)
        for name, cuts in _cuts_of(call.kind).items()
        for axis, side in cuts
        if side == "made" and name != "bias"
    )
    kernel = np.abs(_numpy(getattr(call.operation, name)).astype(np.float64))
    others = tuple(other for other in range(kernel.ndim) if other != axis % kernel.ndim)
    found: NDArray[np.float64] = kernel.sum(others)
    return found


# Which axes of a layer's weights number the channels that it is given ("read") and gives ("made"). Of a separable
# convolution those between are the ones it is given, each `depth_multiplier` times ("between").
_Cuts = Mapping[str, tuple[tuple[int, str], ...]]
_VECTOR = ((-1, "read"),)
_BIAS = ((0, "made"),)
_CUTS: dict[frozenset[str], _Cuts] = {
    DENSE | CONVOLUTIONS: {"kernel": ((-2, "read"), (-1, "made")), "bias": _BIAS},
    TRANSPOSED: {"kernel": ((-1, "read"), (-2, "made")), "bias": _BIAS},
    DEPTHWISE: {"kernel": ((-2, "read"),), "bias": _BIAS},
    SEPARABLE: {
        "depthwise_kernel": ((-2, "read"),),
        "pointwise_kernel": ((-2, "between"), (-1, "made")),
        "bias": _BIAS,
    },
    EMBEDDINGS: {"embeddings": ((-1, "made"),)},
    RECURRENT: {"kernel": ((0, "read"),), "recurrent_kernel": (), "bias": ()},
    NORMALIZATIONS: {
        "gamma": _VECTOR, "beta": _VECTOR, "moving_mean": _VECTOR, "moving_variance": _VECTOR,
    },
    frozenset({"PReLU"}): {"alpha": _VECTOR},
}  # fmt: skip


def _cuts_of(kind: str) -> _Cuts:
    return next((cuts for kinds, cuts in _CUTS.items() if kind in kinds), {})


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


@dataclass(frozen=True, eq=False)
class _Block:
    """What can be left out: calls between two tensors of one shape that nothing else has to do with.

    Attributes:
        start: The tensor that stands for the other then.
        end: The tensor that nothing gives then.
        calls: What lies between.
    """

    start: Tensor
    end: Tensor
    calls: frozenset[Call]


def _blocks_to_leave_out(calls: Calls, depth: float, whole: Mapping[int, str]) -> list[_Block]:
    """Return the blocks to leave out, so that a share of those of each shape stays."""
    if depth == 1:
        return []
    branches = [block for call in calls.calls if (block := _residual(call))]
    innermost = [
        block
        for block in branches
        if not any(other.calls < block.calls for other in branches)
    ]  # fmt: skip
    within = frozenset[Call]().union(*(block.calls for block in innermost))
    rows = [b for call in calls.calls if call not in within and (b := _row(call))]
    order = {call: place for place, call in enumerate(calls.calls)}
    by_shape: dict[Any, list[_Block]] = {}
    for block in sorted([*innermost, *rows], key=lambda b: min(order[c] for c in b.calls)):
        if not any(id(call.operation) in whole for call in block.calls):
            by_shape.setdefault(block.end.shape, []).append(block)
    gone = math.floor((1 - depth) * sum(map(len, by_shape.values())) + 0.5)
    # Of the shape that has most blocks left, and of these the later ones, which add least to what is there.
    return [max(reversed(by_shape.values()), key=len).pop() for _ in range(gone)]


def _residual(call: Call) -> _Block | None:
    """Return the block whose result a sum adds to what the block was given; None where the call is no such sum."""
    tensors, end = call.tensors, call.sole_result
    if call.kind != "Add" or len(tensors) != 2 or end is None or end.is_output:
        return None
    for start, branch in (tensors, tensors[::-1]):
        between = _between_tensors(start, branch)
        if between and start.shape == end.shape and _is_closed(between, {call}):
            return _Block(start, end, between | {call})
    return None


def _between_tensors(start: Tensor, end: Tensor) -> frozenset[Call] | None:
    """Return the calls that make one tensor of another alone; None where more goes into it."""
    waiting, found = [end], set()
    while waiting:
        tensor = waiting.pop()
        if tensor is start:
            continue
        if tensor.maker is None:
            return None
        if tensor.maker not in found:
            found.add(tensor.maker)
            waiting += tensor.maker.tensors
    return frozenset(found)


def _is_closed(between: frozenset[Call], behind: set[Call]) -> bool:
    """Say whether nobody else reads what these calls give, and any of them has weights."""
    given = [tensor for call in between for tensor in call.results]
    sole = all(not t.is_output and set(t.readers) <= between | behind for t in given)
    return sole and any(map(_has_weights, between))


def _row(call: Call) -> _Block | None:
    """Return the block of a layer that gives the shape it is given, with what follows it up to the next one."""
    tensors, end = call.tensors, call.sole_result
    if call.kind not in MAKERS or len(tensors) != 1 or end is None:
        return None
    (start,), row = tensors, [call]
    while len(end.readers) == 1 and not end.is_output:
        (reader,) = end.readers
        after = reader.sole_result
        is_more = reader.kind in NORMALIZATIONS | PASSING and len(reader.tensors) == 1
        if not is_more or after is None or after.shape != end.shape:
            break
        row.append(reader)
        end = after
    if start.maker is None or end.is_output or start.shape != end.shape:
        return None
    return _Block(start, end, frozenset(row))


@dataclass(frozen=True)
class _Building:
    """A student being built.

    Attributes:
        calls: The teacher's.
        coupling: Which of its channels go together.
        stays: Which channels stay.
        separable: The convolutions to separate, by their `id`.
        made: What stands for each operation of the teacher, by its `id`.
        pairs: Layers of the teacher's with the student's.
    """

    calls: Calls
    coupling: Coupling
    stays: NDArray[np.bool_]
    separable: Mapping[int, str]
    made: dict[int, Any] = field(default_factory=dict)
    pairs: list[tuple[Any, Any]] = field(default_factory=list)

    def model(self, teacher: Any) -> Any:
        """Return the student."""
        functional = functional_of(teacher)
        inputs = keras.tree.map_structure(_input_like, functional._inputs_struct)
        given = keras.tree.flatten(inputs)
        names = _names_of(self.calls, [_maker(tensor).name for tensor in given])
        values = dict(zip(self.calls.inputs, given, strict=True))
        for call in self.calls.calls:
            args, kwargs = call.filled(values.__getitem__)
            if kwargs.get("training") is False:  # a part that was frozen is taught again
                del kwargs["training"]
            results = self._operation(call, names)(*args, **kwargs)
            values.update(zip(call.results, keras.tree.flatten(results), strict=True))
        outputs = _named(
            [values[tensor] for tensor in self.calls.outputs],
            [_maker(tensor).name for tensor in functional.outputs],
        )
        made = keras.tree.pack_sequence_as(functional._outputs_struct, outputs)
        student = keras.Model(inputs, made, name=teacher.name)
        student.trainable = True
        for call, layer in self.pairs:
            self._fill(call, layer)
        return student

    def _operation(self, call: Call, names: Mapping[int, str]) -> Any:
        """Return what stands for a call's operation."""
        known = self.made.get(id(call.operation))
        if known is not None:
            return known
        made = self._new(call, names[id(call.operation)])
        self.made[id(call.operation)] = made
        if _has_weights(call):
            self.pairs.append((call, made))
        return made

    def _new(self, call: Call, name: str) -> Any:
        layer = call.operation
        changes: dict[str, Any] = {"name": name, **(self._changes(call) or {})}
        if id(layer) in self.separable:
            return _separable_like(layer, changes)
        if isinstance(layer, keras.Layer):
            changes["trainable"] = True
        return alike(layer, changes)

    def _changes(self, call: Call) -> dict[str, Any] | None:
        """Return what is else in a layer's configuration; None where it is copied as it is."""
        if id(call.operation) in self.coupling.whole:
            return None
        if call.kind == "Reshape":
            *places, last = call.operation.target_shape
            return {
                "target_shape": (*places, last if last == -1 else len(self._kept(call, "made")))
            }
        if call.kind in MAKERS:
            return {_SIZES.get(call.kind, "filters"): len(self._kept(call, "made"))}
        return {} if _cuts_of(call.kind) else None

    def _kept(self, call: Call, side: str) -> NDArray[np.intp]:
        """Return the places of the channels that stay of those that a layer is given, or gives."""
        places = (self.coupling.made if side == "made" else self.coupling.read)[id(call.operation)]
        stays = self.stays[places]
        if side == "between":
            stays = np.repeat(stays, call.operation.depth_multiplier)
        return np.flatnonzero(stays)

    def _fill(self, call: Call, layer: Any) -> None:
        """Give a layer of the student its weights."""
        old = call.operation
        if self._changes(call) is None:
            copy_state(old, layer)
            return
        weights = {
            name: self._cut(call, getattr(_holder(old), name), axes)
            for name, axes in _cuts_of(call.kind).items()
            if getattr(_holder(old), name, None) is not None
        }
        if id(old) in self.separable:
            weights["depthwise_kernel"], weights["pointwise_kernel"] = separated(
                weights.pop("kernel")
            )
        for name, array in weights.items():
            getattr(_holder(layer), name).assign(array)

    def _cut(self, call: Call, weight: Any, axes: Sequence[tuple[int, str]]) -> NDArray[Any]:
        array = _numpy(weight)
        for axis, side in axes:
            if array.shape[axis] > 1 or side == "made":  # one for all channels (PReLU) stays one
                array = np.take(array, self._kept(call, side), axis)
        return array


_SIZES = {"Dense": "units", "Embedding": "output_dim"}


def _separable_like(layer: Any, changes: Mapping[str, Any]) -> Any:
    """Return a separable convolution like a plain one, but for some of its configuration."""
    config = layer.get_config()
    same = ("strides", "padding", "dilation_rate", "use_bias", "dtype")
    return getattr(keras.layers, f"Separable{type(layer).__name__}")(
        kernel_size=layer.kernel_size,
        activation=layer.activation,
        depthwise_regularizer=layer.kernel_regularizer,
        pointwise_regularizer=layer.kernel_regularizer,
        bias_regularizer=layer.bias_regularizer,
        activity_regularizer=layer.activity_regularizer,
        **{name: config[name] for name in same},
        **changes,
    )


def _names_of(calls: Calls, inputs: Sequence[str]) -> dict[int, str]:
    """Return a name for each operation, by its `id`: its own, unless the model has it elsewhere."""
    taken = {*inputs, *(call.chain[0].name for call in calls.calls)}
    found: dict[int, str] = {}
    for call in calls.calls:
        if id(call.operation) not in found:
            own = call.operation.name
            if len(call.chain) > 1:
                own = next(name for name in _spellings(call) if name not in taken)
                taken.add(own)
            found[id(call.operation)] = own
    return found


def _spellings(call: Call) -> Iterator[str]:
    whole = "_".join(part.name for part in call.chain)
    yield from (call.operation.name, whole)
    yield from (f"{whole}_{number}" for number in itertools.count(1))


def _named(tensors: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Return tensors as outputs that have these names: those of models within, which are not there any more."""
    layers: dict[str, Any] = {}
    found = []
    for tensor, name in zip(tensors, names, strict=True):
        if _maker(tensor).name == name:
            found.append(tensor)
            continue
        if name not in layers:
            layers[name] = keras.layers.Identity(name=name, dtype=tensor.dtype)
        found.append(layers[name](tensor))
    return found


def _holder(layer: Any) -> Any:
    """Return what has a layer's weights: of a recurrent one, its cell."""
    return getattr(layer, "cell", layer)


def _maker(tensor: Any) -> Any:
    return tensor._keras_history.operation


def _input_like(tensor: Any) -> Any:
    """Return a symbolic input such as the one that `tensor` is."""
    layer = _maker(tensor)
    return type(layer).from_config(layer.get_config()).output


def _numpy(variable: Any) -> NDArray[Any]:
    found: NDArray[Any] = ops.convert_to_numpy(variable)
    return found
