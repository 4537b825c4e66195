"""Keras models in memory: what they take and give by name, and how they are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from strop.core.errors import ModelError, message
from strop.core.signature import Signature, TensorSpec
from strop.graph.names import unique


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
