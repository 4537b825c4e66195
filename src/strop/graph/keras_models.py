"""Keras models in memory: what they take and give by name, and how they are called."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from strop.core.errors import ModelError, message
from strop.core.signature import Signature, TensorSpec
from strop.graph.names import unique

# Inputs of which each may have a dtype of its own when dtypes are tried: three to the power of it are tried at most.
_MOST_MIXED = 3


def signature_of(model: Any) -> Signature:
    """Return the signature of a built Keras model: its own names and shapes, the batch first.

    Inputs are named after their keys in a dict, else after their input layers; outputs after their keys, else after
    the layers that they come from. These names are what the file keeps; a Keras tensor's own name is not.

    Raises:
        ModelError: If the model was never built, or is called with more than one argument.
    """
    import keras

    inputs, outputs = _interface(model)
    return Signature(
        _specs(keras.tree.flatten_with_path(inputs), "input"),
        _specs(keras.tree.flatten_with_path(outputs), "output"),
    )


def arranged(model: Any, tensors: Sequence[Any], signature: Signature) -> Any:
    """Return `tensors` (in the signature's order) in the structure that `model` is called with."""
    import keras

    return keras.tree.pack_sequence_as(_input_structure(model), list(tensors))


def by_name(model: Any, tensors: Sequence[Any], signature: Signature) -> list[Any]:
    """Return the outputs of `model` for `tensors`, both in the signature's order, not in training."""
    return outputs_of(model(arranged(model, tensors, signature), training=False), signature)


def outputs_of(result: Any, signature: Signature) -> list[Any]:
    """Return what a Keras model gave as a list in the signature's order."""
    import keras

    return list(keras.tree.flatten(result))


def typed_inputs(model: Any) -> list[Any] | None:
    """Return what a model of a class of its own is called with, an argument each: `tf.TensorSpec`, or a structure of them.

    Keras remembers the shapes that such a model was called with and takes all dtypes for float32. Here the model's own
    code decides: an input that float32 will not do for, or of which nothing is used but what a cast to whole numbers
    leaves, is of whole numbers.

    Returns:
        None where Keras knows the inputs by itself, or where the model's code takes none of the dtypes tried.
    """
    import tensorflow as tf

    if _is_symbolic(model) or not getattr(model, "_build_shapes_dict", None):
        return None
    floats = [_floats(shape, model.input_dtype) for shape in model._build_shapes_dict.values()]
    leaves = tf.nest.flatten(floats)

    def typed(dtypes: Sequence[Any]) -> list[Any]:
        pairs = zip(leaves, dtypes, strict=True)
        specs = [tf.TensorSpec(leaf.shape, dtype) for leaf, dtype in pairs]
        return list(tf.nest.pack_sequence_as(floats, specs))

    for dtypes in _assignments(len(leaves), (leaves[0].dtype, tf.int32, tf.int64)):
        try:
            traced = tf.function(
                lambda *given: model(*given, training=False), autograph=False
            ).get_concrete_function(*typed(dtypes))
        # The model's own code runs here, on symbols: it may raise anything.
        except Exception:  # noqa: BLE001
            continue
        return typed([tf.int32 if _is_cast(x) else x.dtype for x in traced.inputs[: len(leaves)]])
    return None


def _floats(shape: Any, dtype: str) -> Any:
    """Return a structure of shapes, as Keras keeps it, as one of plain containers and tensors of `dtype`."""
    import tensorflow as tf

    if isinstance(shape, Mapping):
        return {key: _floats(inner, dtype) for key, inner in shape.items()}
    if all(size is None or isinstance(size, int) for size in shape):
        # The batch that the model happened to be called with says nothing about the next.
        return tf.TensorSpec((None, *shape[1:]), dtype)
    return [_floats(inner, dtype) for inner in shape]


def _assignments(count: int, dtypes: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return the dtypes to try for so many inputs, those first that have most of the first one."""
    if count > _MOST_MIXED:
        return [(dtype,) * count for dtype in dtypes]
    found = itertools.product(dtypes, repeat=count)
    return sorted(found, key=lambda tried: sum(dtype != dtypes[0] for dtype in tried))


def _is_cast(tensor: Any) -> bool:
    """Say whether all that is done with a tensor of real numbers is to cast it to whole ones."""
    readers = tensor.consumers()
    return bool(readers and tensor.dtype.is_floating) and all(
        reader.type == "Cast" and reader.outputs[0].dtype.is_integer for reader in readers
    )


def _interface(model: Any) -> tuple[Any, Any]:
    """Return the symbolic inputs and outputs of a model, structured as in a call."""
    if _is_symbolic(model):
        functional = getattr(model, "_functional", None) or model
        return _input_structure(model), getattr(functional, "_outputs_struct", model.outputs)
    given = _input_structure(model)
    try:
        return given, model.compute_output_spec(given)
    # The model's own code runs here, on symbols: it may raise anything.
    except Exception as error:
        raise ModelError(
            message(
                f"the model '{model.name}' can't be called with one argument, as its inputs are known: {error}",
                "Give a model of one argument: a tensor, a list or a dict of tensors.",
                next_step="keras.Model(inputs, model(*inputs))",
            )
        ) from error


def _is_symbolic(model: Any) -> bool:
    """Say whether the model knows its own tensors (Functional, Sequential), unlike a subclass with a `call`."""
    try:
        return bool(model.inputs)
    except AttributeError:  # what a Sequential that was never built answers with
        return False


def _input_structure(model: Any) -> Any:
    """Return the model's symbolic inputs, structured as it is called with them."""
    import keras

    if _is_symbolic(model):
        functional = getattr(model, "_functional", None) or model
        return getattr(functional, "_inputs_struct", model.inputs)
    shapes = getattr(model, "_build_shapes_dict", None)
    if not shapes:
        raise ModelError(
            message(
                f"the model '{model.name}' was never called, so its inputs are not known.",
                "Call it once on data of the right shape, or begin it with a keras.Input.",
                next_step="model(sample_batch)",
            )
        )
    dtype = getattr(model, "input_dtype", None) or keras.config.floatx()
    return keras.tree.map_shape_structure(
        # The batch that the model happened to be called with says nothing about the next.
        lambda shape: keras.KerasTensor((None, *shape[1:]), dtype),
        next(iter(shapes.values())),
    )


def _specs(leaves: Sequence[tuple[tuple[Any, ...], Any]], kind: str) -> tuple[TensorSpec, ...]:
    import keras

    names = unique([_name(path, tensor) or kind for path, tensor in leaves])
    return tuple(
        TensorSpec(
            name,
            tuple(tensor.shape),
            "str" if tensor.dtype == "string" else keras.backend.standardize_dtype(tensor.dtype),
        )
        for name, (_, tensor) in zip(names, leaves, strict=True)
    )


def _name(path: tuple[Any, ...], tensor: Any) -> str:
    keys = [str(part) for part in path if isinstance(part, str)]
    if keys:
        return "_".join(keys)
    history = getattr(tensor, "_keras_history", None)
    return str(history.operation.name) if history else ""
