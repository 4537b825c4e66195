"""Marks: what weights have to keep, written down where a layer has its constraints, and so saved with the model.

A mark is a Keras constraint around the one that the user gave. Layers that are not built yet bear it as well: their
weights get it when they come to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import keras

from strop.core.errors import InputError, message
from strop.graph.keras_layers import layers_of
from strop.train.kernels import Kernel, declared_kernels

# The argument of a layer that constrains a kernel, where it is not called after it.
_ARGUMENTS = {
    "recurrent_kernel": ("recurrent_constraint",),
    "depthwise_kernel": ("depthwise_constraint",),
    "pointwise_kernel": ("pointwise_constraint",),
    "kernel": ("kernel_constraint", "depthwise_constraint"),
}
# Layers that hand their constraint to those that they are made of when they are built.
_HANDED_ON = {
    "MultiHeadAttention": "_kernel_constraint",
    "GroupedQueryAttention": "kernel_constraint",
}


class Mark(keras.constraints.Constraint):  # type: ignore[misc]
    """What a weight has to keep.

    Attributes:
        within: The user's constraint, or another mark; None for none.
        channel_axes: The axes of the weight that number output channels, counted from the end.
        owner: The layer, where its class says by itself which of its weights are meant.
    """

    method = ""
    """The method by which a class says which of its weights are meant."""

    def __init__(
        self, within: Any = None, *, channel_axes: Any = (-1,), is_meant: bool = True
    ) -> None:
        self.within = keras.constraints.get(within)
        self.channel_axes = tuple(channel_axes)
        self.owner: Any = None
        self._is_meant = is_meant

    def __call__(self, weights: Any) -> Any:
        """Return weights as the user's constraint has them."""
        return weights if self.within is None else self.within(weights)

    @property
    def is_meant(self) -> bool:
        """Whether the weight that bears it is one of those that its layer says."""
        if self.owner is None or not self.owner.built:
            return self._is_meant
        return any(find(v.constraint, type(self)) is self for v in own_weights(self.owner, self))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        return {
            "within": keras.constraints.serialize(self.within) if self.within else None,
            "channel_axes": list(self.channel_axes),
            "is_meant": self.is_meant,
        }

    def custom_objects(self) -> Mapping[str, Any]:
        """Return the user's classes that its config names."""
        return {}


class KeepingMark(Mark):
    """A mark that does by itself, within each step of training, what has to be done.

    What is to be kept of a weight is found before the first step that it is trained by. With a compiled step, that is
    when it is compiled, and again where it is compiled anew: weights may have been loaded meanwhile.
    """

    def __init__(self, within: Any = None, **of_mark: Any) -> None:
        super().__init__(within, **of_mark)
        self._kept: dict[int, Any] = {}

    def __call__(self, weights: Any) -> Any:
        """Return what the optimizer made of the weights with what has to be kept."""
        moved = super().__call__(weights)
        if not self.is_meant:
            return moved
        is_compiling = _is_compiling()
        with _outside_of_steps():
            kept = self._kept_of(weights, has_moved=not is_compiling)
        return moved if kept is None else self.project(kept, moved)

    def begin(self, variable: Any) -> None:
        """Find out now what is to be kept of a variable."""
        self._kept[id(variable)] = self.found(_kernel_of(variable, self.channel_axes))

    def found(self, kernel: Kernel) -> Any:
        """Return what is to be kept of a weight; None where there is nothing to keep."""
        raise NotImplementedError

    def settled(self, kept: Any) -> None:
        """Go by the weight as it is, where something but the training step has set it."""
        raise NotImplementedError

    def project(self, kept: Any, weights: Any) -> Any:
        """Return weights with what is kept, within a compiled step."""
        raise NotImplementedError

    def _kept_of(self, weights: Any, *, has_moved: bool) -> Any:
        if not isinstance(weights, keras.Variable):
            return self._only_kept()
        if id(weights) not in self._kept:
            if has_moved:
                self.refuse_late(weights)
            self.begin(weights)
        elif not has_moved and self._kept[id(weights)] is not None:
            self.settled(self._kept[id(weights)])
        return self._kept[id(weights)]

    def _only_kept(self) -> Any:
        """Return what is kept of the one weight there is: another constraint around this one gives tensors."""
        if len(self._kept) != 1:
            raise InputError(
                message(
                    "weights are to keep two things at once, and which weights they are can't be told.",
                    "Take the pruning off before, with strip_pruning(model): zeros can be kept without it.",
                )
            )
        return next(iter(self._kept.values()))

    def refuse_late(self, variable: Any) -> None:
        """Refuse to begin with a weight that has been trained by a step already, where that matters.

        Raises:
            InputError: If what is to be kept can't be told any more.
        """
        raise InputError(
            message(
                f"what '{variable.path}' has to keep can't be told any more: a step that is not compiled has changed it.",
                "A step within a tf.function, as fit has one, finds it out in time.",
            )
        )


_Kind = TypeVar("_Kind", bound=Mark)


def own_weights(layer: Any, mark: Mark | type[Mark]) -> list[Any]:
    """Return the weights that a layer's class says by itself, or nothing where it says none."""
    if not hasattr(layer, mark.method):
        return []
    found = getattr(layer, mark.method)()
    return [one[-1] if isinstance(one, tuple) else one for one in found]


def find(constraint: Any, kind: type[_Kind]) -> _Kind | None:
    """Return the mark of a kind that a constraint is, or has within."""
    while constraint is not None:
        if isinstance(constraint, kind):
            return constraint
        constraint = getattr(constraint, "within", None)
    return None


def put(layer: Any, make: Callable[..., _Kind], kind: type[_Kind]) -> bool:
    """Mark the kernels of a layer and of all layers within it; those that bear such a mark keep it.

    Args:
        layer: A layer or a model, built or not.
        make: Called with `within` and `channel_axes` for each mark.
        kind: The class of what `make` returns.

    Returns:
        Whether there is anything that can bear the mark.
    """
    parts = layers_of(layer)
    can_bear = [_put_here(part, make, kind) for part in parts]
    for part in parts:
        _put_where_it_is_saved(part, kind)
    return any(can_bear)


def borne(model: Any, kind: type[_Kind]) -> list[tuple[Any, _Kind]]:
    """Return the variables of a model that are to keep something, with the mark that says what."""
    found: dict[int, tuple[Any, _Kind]] = {}
    for layer in layers_of(model):
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
            mark = find(getattr(variable, "constraint", None), kind)
            if mark is not None and mark.is_meant:
                found[id(variable)] = variable, mark
    return list(found.values())


def take_off(model: Any, kind: type[Mark]) -> None:
    """Take all marks of a kind from a model, and leave the user's constraints."""
    for layer in layers_of(model):
        for argument, constraint in _constraints(layer):
            setattr(layer, argument, _without(constraint, kind))
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
            if hasattr(variable, "constraint"):
                variable.constraint = _without(variable.constraint, kind)


def marks_in(model: Any, kind: type[_Kind]) -> list[_Kind]:
    """Return the marks that the layers of a model bear, built or not."""
    constraints = [c for layer in layers_of(model) for _, c in _constraints(layer)]
    return [mark for mark in (find(c, kind) for c in constraints) if mark is not None]


def custom_objects(model: Any) -> dict[str, Any]:
    """Return the user's classes that the marks in a model name."""
    found: dict[str, Any] = {}
    for layer in layers_of(model):
        for _, constraint in _constraints(layer):
            while isinstance(constraint, Mark):
                found |= constraint.custom_objects()
                constraint = constraint.within
    return found


def with_arguments(
    layer: Any, *, input_shape: Any = None, batch_input_shape: Any = None, name: str | None = None
) -> Any:
    """Return a layer with what could have been given to its constructor."""
    shape = input_shape if batch_input_shape is None else batch_input_shape[1:]
    if shape is not None:
        layer._input_shape_arg = tuple(shape)  # what Sequential looks for in its first layer
    if name is not None:
        layer.name = name
    return layer


def mark_layer(layer: Any, make: Callable[..., _Kind], kind: type[_Kind], **given: Any) -> Any:
    """Mark a layer, and return it.

    Args:
        layer: A layer, built or not.
        make: As of `put`.
        kind: As of `put`.
        **given: As of `with_arguments`.

    Raises:
        ValueError: If it is no layer, or one of someone's own class that doesn't say its kernels.
    """
    if not isinstance(layer, keras.layers.Layer):
        name = type(layer).__name__
        raise ValueError(f"expected a Keras model, a layer, or a list of layers, got a '{name}'")
    # Those of Keras' own that have no kernels have nothing to mark.
    if not put(layer, make, kind) and not type(layer).__module__.startswith("keras."):
        raise ValueError(
            message(
                f"no kernels of the layer '{layer.name}' ({type(layer).__name__}) are known.",
                f"A class of your own names them in a method {kind.method}, once it is built or has constraints.",
            )
        )
    return with_arguments(layer, **given)


def _is_compiling() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


def _outside_of_steps() -> AbstractContextManager[Any]:
    """Return a context in which a variable has the value from before the step that is being compiled."""
    if keras.backend.backend() != "tensorflow":
        return nullcontext()
    import tensorflow as tf

    context: AbstractContextManager[Any] = tf.init_scope()
    return context


def _kernel_of(variable: Any, channel_axes: tuple[int, ...]) -> Kernel:
    rank = len(variable.shape)
    summed = tuple(axis for axis in range(rank) if axis - rank not in channel_axes)
    return Kernel(variable.path, variable, summed)


def _put_here(layer: Any, make: Callable[..., _Kind], kind: type[_Kind]) -> bool:
    if hasattr(layer, kind.method):
        return _put_where_the_class_says(layer, make, kind)
    kernels = declared_kernels(layer)
    for attribute, axes in kernels.items():
        variable = _variable(layer, attribute)
        arguments = _ARGUMENTS.get(attribute, (f"{attribute}_constraint",))
        argument = next((name for name in arguments if name in vars(layer)), None)
        _mark(layer, argument, [variable], lambda within, a=axes: make(within, channel_axes=a), kind)  # fmt: skip
    handed_on = _HANDED_ON.get(type(layer).__name__)
    if handed_on and not layer.built:
        _mark(layer, handed_on, [], make, kind)
    return bool(kernels or handed_on)


def _put_where_it_is_saved(layer: Any, kind: type[Mark]) -> None:
    """Have a layer that hands on its constraint bear the mark of those it is made of: they are saved with it."""
    argument = _HANDED_ON.get(type(layer).__name__)
    if argument is None or find(getattr(layer, argument), kind) is not None:
        return
    marks = [find(c, kind) for inner in layers_of(layer)[1:] for _, c in _constraints(inner)]
    mark = next((mark for mark in marks if mark is not None), None)
    if mark is not None:
        setattr(layer, argument, mark)


def _put_where_the_class_says(layer: Any, make: Callable[..., _Kind], kind: type[_Kind]) -> bool:
    """Mark what the layer's own method returns; all that have constraints while there is nothing to return yet."""
    variables = {v.name: v for v in own_weights(layer, kind)} if layer.built else {}
    names = variables or {name.removesuffix("_constraint"): None for name, _ in _arguments(layer)}
    for name, variable in names.items():
        argument = f"{name}_constraint"
        _mark(layer, argument if argument in vars(layer) else None, [variable], make, kind, layer)
    return bool(names) or layer.built


def _mark(
    layer: Any,
    argument: str | None,
    variables: list[Any],
    make: Callable[..., _Kind],
    kind: type[_Kind],
    owner: Any = None,
) -> None:
    given = [v for v in variables if v is not None]
    before = getattr(layer, argument) if argument else (given[0].constraint if given else None)
    if find(before, kind) is not None:
        return
    mark = make(before)
    mark.owner = owner
    if argument:
        setattr(layer, argument, mark)
    for variable in given:
        variable.constraint = mark


def _variable(layer: Any, attribute: str) -> Any:
    found = getattr(layer, attribute, None) if layer.built else None
    return found if isinstance(found, keras.Variable) else None


def _arguments(layer: Any) -> list[tuple[str, Any]]:
    return [(name, c) for name, c in vars(layer).items() if name.endswith("_constraint")]


def _constraints(layer: Any) -> Iterator[tuple[str, Any]]:
    yield from ((name, c) for name, c in _arguments(layer) if isinstance(c, Mark))


def _without(constraint: Any, kind: type[Mark]) -> Any:
    if not isinstance(constraint, Mark):
        return constraint
    inner = _without(constraint.within, kind)
    if isinstance(constraint, kind):
        return inner
    constraint.within = inner
    return constraint
