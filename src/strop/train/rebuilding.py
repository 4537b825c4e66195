"""Copies of live Keras models, in which several layers in a row may stand for one.

Models that Keras itself runs, Functional and Sequential, are copied layer by layer, those within them too; each layer
once, wherever it stands. The copy of a Sequential model is one, that of any other is Functional.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from numpy.typing import NDArray

from strop.core.errors import ModelError, message
from strop.graph.keras_layers import layers_of


@dataclass(frozen=True)
class Part:
    """A layer to stand for a share of another, and its weights, the kernel first."""

    layer: Any
    weights: Sequence[NDArray[Any]]


@dataclass(frozen=True)
class Use:
    """A use of a layer, in one of the places where it stands, with the shapes of what it is given and gives there."""

    layer: Any
    given: tuple[int | None, ...]
    gives: tuple[int | None, ...]


@dataclass(frozen=True)
class Copy:
    """A copy of a model, to try things on.

    Attributes:
        model: The copy, with the same answers; not compiled.
        layers: What stands in it for each layer that the model, or one within it, calls; by the layer's `id`.
        uses: Those of those layers, in the order of work; once more for each place of a model around.
    """

    model: Any
    layers: Mapping[int, Any]
    uses: Sequence[Use]


def copied(model: Any) -> Copy:
    """Return a copy of a model, with what it tells of the model's layers.

    Raises:
        ModelError: If the model is neither Functional nor Sequential, or a part of it can't be copied.
    """
    making = _Copying({}, keeps_sequential=False)
    made = making.model(model)
    making.fill()
    layers = {id(layer): copy for layer, copy in making.copied}
    return Copy(made, layers, tuple(making.uses(model)))


def rebuilt(model: Any, parts: Mapping[int, Sequence[Part]]) -> Any:
    """Return a copy of a model in which some layers are others, compiled as the model is.

    Args:
        model: A Functional or a Sequential model; it stays as it is.
        parts: What stands for a layer, first to last, by the layer's `id`.

    Raises:
        ModelError: If the model is neither Functional nor Sequential, or a part of it can't be copied.
    """
    making = _Copying(parts, keeps_sequential=True)
    made = making.model(model)
    making.fill()
    if getattr(model, "compiled", False):
        _compile_alike(made, model)
    return made


def alike(
    operation: Any, changes: Mapping[str, Any] | None = None, *, but: Sequence[str] = ()
) -> Any:
    """Return a new layer or operation of the same class and configuration, a layer without its weights.

    Args:
        operation: The layer or operation.
        changes: What is otherwise in its configuration.
        but: What is as where no configuration says anything.

    Raises:
        ModelError: If its configuration does not make another.
    """
    with _copying(operation):
        # Keras' scopes don't add up: within one of ours, what the caller's names would not be found.
        with contextlib.suppress(TypeError, ValueError):
            return _written_and_read(operation, changes or {}, but)
        with keras.saving.custom_object_scope(_own_objects(operation)):
            # Functions of somebody's own may be all that is in the way.
            with contextlib.suppress(TypeError, ValueError):
                return _written_and_read(operation, changes or {}, but)
            if not isinstance(operation, keras.Layer):
                return _written_and_read(operation, changes or {}, but)
            return _with_own_objects(operation, changes or {}, but)


def copy_state(layer: Any, copy: Any) -> None:
    """Give a layer, and those within, all that another of the same configuration holds: as by saving and loading.

    Weights alone are too little: some layers compute with what they make of these once they are loaded
    (`keras.layers.Normalization`), or hold vocabularies.

    Raises:
        ModelError: If it can't be given them.
    """
    with _copying(layer):
        for one, other in zip(layers_of(layer), layers_of(copy), strict=True):
            store: dict[str, Any] = {}
            one.save_own_variables(store)
            other.load_own_variables(store)
            if hasattr(one, "save_assets"):
                with tempfile.TemporaryDirectory(prefix="strop-") as folder:
                    one.save_assets(folder)
                    other.load_assets(folder)


def _written_and_read(operation: Any, changes: Mapping[str, Any], but: Sequence[str]) -> Any:
    written = keras.saving.serialize_keras_object(operation)
    config = {**written["config"], **changes}
    written["config"] = {key: config[key] for key in config if key not in but}
    written.pop("build_config", None)  # its weights may be of other shapes
    # The code that a Lambda would bring along is in this process already.
    return keras.saving.deserialize_keras_object(written, safe_mode=False)


def _with_own_objects(layer: Any, changes: Mapping[str, Any], but: Sequence[str]) -> Any:
    """Return a layer like another that has its functions and objects of somebody's own, which no configuration tells."""
    config = {**layer.get_config(), **changes}
    own = {
        name: value
        for name, value in vars(layer).items()
        if name in config and name not in {*changes, *but} and _is_own(value)
    }
    config |= dict.fromkeys(own)
    made = type(layer).from_config({key: config[key] for key in config if key not in but})
    for name, value in own.items():
        setattr(made, name, value)
    return made


@contextlib.contextmanager
def _copying(operation: Any) -> Iterator[None]:
    """Say which layer it is that can't be copied, whatever its own code raises."""
    try:
        yield
    except Exception as error:
        raise ModelError(
            message(
                f"the layer '{operation.name}', a {type(operation).__name__}, can't be copied: {error}",
                "A copy is made of what its get_config() says and of its weights, as by saving and loading.",
            )
        ) from error


class _Copying:
    """Models being copied, each layer once wherever it stands.

    Attributes:
        copied: Layers with their copies, whose weights are still their own.
    """

    def __init__(self, parts: Mapping[int, Sequence[Part]], *, keeps_sequential: bool) -> None:
        self.copied: list[tuple[Any, Any]] = []
        self._parts, self._keeps_sequential = parts, keeps_sequential
        self._made: dict[int, Any] = {}
        self._originals: dict[int, Any] = {}
        self._uses: dict[int, list[Use]] = {}

    def model(self, original: Any) -> Any:
        """Return the copy of a Functional or a Sequential model, without its weights."""
        graph = _graph_of(original)
        if graph is None:
            raise _of_own_class(original)
        named = {"name": original.name, "trainable": original.trainable}
        inputs = _inputs_like(graph)
        if self._keeps_sequential and isinstance(original, keras.Sequential):
            layers = [made for layer in original.layers for made in self._row(layer)]
            return keras.Sequential([inputs, *layers], **named)
        uses = self._uses[id(original)] = []

        def call(made: Any, *args: Any, **kwargs: Any) -> Any:
            operation = self._originals[id(made)]
            _refuse_variables(operation, (args, kwargs))
            first, *others = self._row(operation)
            result = first(*args, **kwargs)
            for other in others:
                result = other(result)
            if isinstance(operation, keras.Layer):
                uses.append(Use(operation, _shape((args, kwargs)), _shape(result)))
            return result

        clone = keras.models.clone_model(
            graph, input_tensors=inputs, clone_function=self._copy, call_function=call
        )
        # Told afterwards, a model would pass on whether it is trainable to the layers within.
        return keras.Model(clone.input, clone.output, **named)

    def fill(self) -> None:
        """Give all copies, which are built by now, their weights."""
        for original, copy in self.copied:
            copy_state(original, copy)
        for part in itertools.chain.from_iterable(self._parts.values()):
            part.layer.set_weights(part.weights)

    def uses(self, original: Any) -> Iterator[Use]:
        """Yield the uses of layers in a model that was copied, of those within models too."""
        for use in self._uses[id(original)]:
            if id(use.layer) in self._uses:
                yield from self.uses(use.layer)
            else:
                yield use

    def _row(self, operation: Any) -> tuple[Any, ...]:
        """Return what stands for an operation: one, or several in a row."""
        if id(operation) in self._parts:
            return tuple(part.layer for part in self._parts[id(operation)])
        return (self._copy(operation),)

    def _copy(self, operation: Any) -> Any:
        """Return what stands for an operation; of several the last."""
        if id(operation) not in self._made:
            made = self._made[id(operation)] = self._made_of(operation)
            self._originals[id(made)] = operation
        return self._made[id(operation)]

    def _made_of(self, operation: Any) -> Any:
        if id(operation) in self._parts:
            return self._parts[id(operation)][-1].layer
        if _graph_of(operation) is not None:
            return self.model(operation)
        copy = alike(operation)
        if isinstance(operation, keras.Layer):
            self.copied.append((operation, copy))
        return copy


def _graph_of(layer: Any) -> Any:
    """Return a Functional model of a model's own layers, where Keras itself calls these; None for all other layers."""
    calls = getattr(type(layer), "call", None)
    if not getattr(calls, "__module__", "").startswith("keras."):
        return None
    if isinstance(layer, keras.Sequential):
        if not hasattr(layer, "inputs"):  # never called on symbols
            return None
        outputs = layer.outputs[0] if len(layer.outputs) == 1 else layer.outputs
        return keras.Model(layer.inputs[0], outputs, name=layer.name)
    if isinstance(layer, keras.Model) and isinstance(layer, keras.Function):
        return keras.Model(layer.input, layer.output, name=layer.name)
    return None


def _of_own_class(model: Any) -> ModelError:
    return ModelError(
        message(
            f"the layers of the model '{model.name}' are called by code of its own class, {type(model).__name__}, "
            "so others can't take their places.",
            "A Functional or a Sequential model can be factored.",
            next_step="keras.Model(inputs, outputs)",
        )
    )


def _inputs_like(graph: Any) -> Any:
    """Return symbolic inputs such as those of a model, in the structure that it is called with."""
    layers = [layer for layer in graph.layers if isinstance(layer, keras.layers.InputLayer)]
    by_tensor = {id(layer.output): layer for layer in layers}

    def like(tensor: Any) -> Any:
        layer = by_tensor[id(tensor)]
        return type(layer).from_config(layer.get_config()).output

    return keras.tree.map_structure(like, graph.input)


def _shape(structure: Any) -> tuple[int | None, ...]:
    """Return the shape of the first tensor of several."""
    shapes = (leaf.shape for leaf in keras.tree.flatten(structure) if hasattr(leaf, "shape"))
    return tuple(next(shapes, ()))


def _refuse_variables(operation: Any, arguments: Any) -> None:
    """Refuse what computes with a variable that is given to it: a copy would compute with the very same one."""
    for leaf in keras.tree.flatten(arguments):
        if isinstance(leaf, keras.Variable):
            raise ModelError(
                message(
                    f"the operation '{operation.name}' computes with the variable '{leaf.path}', which is another's.",
                    "A copy of the model would go on computing with it. Write the operation as a layer that has the "
                    "variable, or do without it.",
                )
            )


def _own_objects(operation: Any) -> dict[str, Any]:
    """Return the classes and functions, by name, that an operation is made of and that are not Keras' own."""
    parts = layers_of(operation) if isinstance(operation, keras.Layer) else [operation]
    things = [thing for part in parts for thing in (part, *vars(part).values()) if _is_own(thing)]
    classes = [thing if inspect.isfunction(thing) else type(thing) for thing in things]
    return {found.__name__: found for found in classes}


def _is_own(thing: Any) -> bool:
    """Say whether something is a function, or can be called like one, and is not Keras' own."""
    home = thing if inspect.isfunction(thing) else type(thing)
    is_keras = (home.__module__ or "").startswith("keras.")
    return callable(thing) and not is_keras


def _compile_alike(model: Any, other: Any) -> None:
    """Compile `model` as `other` is; without its metrics where its loss can't be written down."""
    try:
        model.compile_from_config(other.get_compile_config())
    except (TypeError, ValueError):  # functions of the user's, which Keras finds no names for
        optimizer = type(other.optimizer).from_config(other.optimizer.get_config())
        model.compile(optimizer=optimizer, loss=other.loss)
