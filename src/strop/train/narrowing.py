"""A model built anew of the calls of another, its layers with the weights of the channels that stay."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from strop.graph.keras_calls import Call, Calls, functional_of
from strop.numerics.separable import separated
from strop.train.coupling import (
    CONVOLUTIONS,
    DENSE,
    DEPTHWISE,
    EMBEDDINGS,
    MAKERS,
    NORMALIZATIONS,
    RECURRENT,
    SEPARABLE,
    TRANSPOSED,
    Coupling,
)
from strop.train.rebuilding import alike, copy_state


def narrowed(
    teacher: Any,
    calls: Calls,
    coupling: Coupling,
    stays: NDArray[np.bool_],
    *,
    separable: Mapping[int, str],
) -> Any:
    """Return a model of the same inputs and outputs as `teacher`, with the weights of the channels that stay.

    Args:
        teacher: A Functional or a Sequential model; it stays as it is.
        calls: Those of its that stay.
        coupling: Which of their channels go together.
        stays: Which channels stay, by their unit.
        separable: The convolutions that become separable ones, by their layers' `id`.

    Raises:
        ModelError: If a layer can't be copied.
    """
    return _Narrowing(calls, coupling, stays, separable).model(teacher)


def sizes_of_kernels(call: Call) -> NDArray[np.float64]:
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


@dataclass(frozen=True)
class _Narrowing:
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
        if call.has_weights:
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


def _cuts_of(kind: str) -> _Cuts:
    return next((cuts for kinds, cuts in _CUTS.items() if kind in kinds), {})
