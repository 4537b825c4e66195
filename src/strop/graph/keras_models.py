"""Keras models as strop handles them: loaded safely, called by the signature's names, saved so that they load again."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from strop.core.errors import ModelError, UnsafeModelError, message
from strop.core.signature import Signature, TensorSpec

# Arguments that Keras 2 wrote into configurations and Keras 3 refuses; each had this one meaningful value.
_STRAY_ARGUMENTS = {
    "DepthwiseConv2D": ("groups",),
    "LSTM": ("time_major",),
    "GRU": ("time_major",),
    "SimpleRNN": ("time_major",),
    "RNN": ("time_major",),
}


def load(path: Path, *, allow: Collection[str] = ()) -> Any:
    """Return the Keras model in a ``.keras`` or ``.h5`` file, uncompiled.

    Args:
        path: The file.
        allow: ``lambda`` admits Lambda layers, which are Python code in the file.

    Raises:
        UnsafeModelError: If the model carries code and `allow` does not admit it.
        ModelError: If the file can't be read, or names a class that isn't known.
    """
    import keras

    try:
        if zipfile.is_zipfile(path):
            _refuse_lambdas(path, allow)
            return keras.models.load_model(
                path, compile=False, safe_mode="lambda" not in allow
            )
        return _load_h5(path, allow)
    except ModelError:
        raise
    # h5py, zipfile, json and Keras raise errors of many kinds for one and the same thing: a file that is not good.
    except Exception as error:  # noqa: BLE001
        raise _unreadable(path, error) from None


def _load_h5(path: Path, allow: Collection[str]) -> Any:
    import h5py
    import keras

    with h5py.File(path, "r") as file:
        text = file.attrs.get("model_config")
    if text is None:
        raise ModelError(
            message(
                f"'{path}' holds weights only, no model.",
                "Build the model in Python, load the weights into it, and save the whole.",
                next_step="model.load_weights(...); model.save('model.keras')",
            )
        )
    config = json.loads(text)
    if "Lambda" in _class_names(config) and "lambda" not in allow:
        raise _unsafe(path)
    if not _drop_stray_arguments(config):
        return keras.models.load_model(
            path, compile=False, safe_mode="lambda" not in allow
        )
    return _rebuilt(config, path)


def needs_repair(path: Path) -> bool:
    """Say whether `path` is a legacy file that only `load` here can load, not Keras 3 by itself."""
    import h5py

    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        return _drop_stray_arguments(json.loads(file.attrs["model_config"]))


def _rebuilt(config: dict[str, Any], path: Path) -> Any:
    """Return the model of a repaired configuration, with the file's weights."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format, saving_utils

    model = saving_utils.model_from_config(config)
    with h5py.File(path, "r") as file:
        legacy_h5_format.load_weights_from_hdf5_group(file["model_weights"], model)
    return model


def _drop_stray_arguments(config: object) -> bool:
    """Take arguments that Keras 3 refuses out of a configuration, in place; say whether there were any."""
    found = False
    if isinstance(config, dict):
        inner = config.get("config")
        if isinstance(inner, dict):
            for stray in _STRAY_ARGUMENTS.get(str(config.get("class_name")), ()):
                found = inner.pop(stray, None) is not None or found
        for value in config.values():
            found = _drop_stray_arguments(value) or found
    elif isinstance(config, list):
        for value in config:
            found = _drop_stray_arguments(value) or found
    return found


def _class_names(config: object) -> set[str]:
    if isinstance(config, dict):
        own = {str(config["class_name"])} if "class_name" in config else set()
        return own.union(*map(_class_names, config.values()))
    return (
        set().union(*map(_class_names, config)) if isinstance(config, list) else set()
    )


def _refuse_lambdas(path: Path, allow: Collection[str]) -> None:
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    if "Lambda" in _class_names(config) and "lambda" not in allow:
        raise _unsafe(path)


def _unsafe(path: Path) -> UnsafeModelError:
    return UnsafeModelError(
        message(
            f"'{path}' has a Lambda layer, which is Python code inside the file.",
            "Loading it would run that code. If you trust where it comes from, allow it:",
            next_step="--allow lambda",
        ),
        allow="lambda",
    )


def _unreadable(path: Path, error: Exception) -> ModelError:
    text = str(error)
    if "Could not locate class" in text or "Unknown layer" in text:
        name = text.split("'")[1] if "'" in text else text.splitlines()[0]
        return ModelError(
            message(
                f"'{path}' uses the class {name}, which is not known here.",
                "Register it (keras.saving.register_keras_serializable) in a module and name that, or give "
                "the model as a SavedModel, which needs no classes.",
                next_step="model.export('saved_model_folder')",
            )
        )
    gist = next(
        (line.strip() for line in text.splitlines() if line.strip()),
        type(error).__name__,
    )
    return ModelError(
        message(
            f"'{path}' can't be read as a Keras model: {gist[:200]}",
            "A .keras or .h5 file that Keras 3 itself loads is what is needed; this one may be cut short.",
            next_step=f"python -c \"import keras; keras.models.load_model('{path}')\"",
        )
    )


def signature_of(model: Any) -> Signature:
    """Return the signature of a built Keras model: its own names and shapes, the batch first.

    Raises:
        ModelError: If the model was never built.
    """
    inputs, outputs = _tensors(model)
    return Signature(_specs(inputs), _specs(outputs))


def _tensors(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    import keras

    if getattr(model, "inputs", None):
        # `_inputs_struct` is the shape of the call (dict, list, single); names of tensors are not kept on disk.
        struct, outs = (
            getattr(model, "_inputs_struct", model.inputs),
            model.output_names,
        )
        inputs = _named(struct, [t.name for t in model.inputs], model.inputs)
        outputs = _named(
            getattr(model, "_outputs_struct", None), list(outs), model.outputs
        )
        return inputs, outputs
    recipe = getattr(model, "_build_shapes_dict", None)
    if not recipe:
        raise ModelError(
            message(
                "the model was never called, so its inputs are not known.",
                "Call it once on data of the right shape before saving it, or build it with an Input.",
                next_step="model(sample_batch); model.save('model.keras')",
            )
        )
    shape = recipe.get("input_shape", next(iter(recipe.values())))
    named = shape if isinstance(shape, dict) else {"input": shape}
    dtype = (
        model.input_dtype if hasattr(model, "input_dtype") else keras.config.floatx()
    )
    symbolic = {n: keras.KerasTensor((None, *s[1:]), dtype) for n, s in named.items()}
    given = symbolic if isinstance(shape, dict) else next(iter(symbolic.values()))
    result = model.compute_output_spec(given)
    leaves = keras.tree.flatten(result)
    names = (
        list(result)
        if isinstance(result, dict)
        else [f"output_{i}" for i in range(len(leaves))]
    )
    return symbolic, dict(
        zip(names if len(leaves) > 1 else ["output"], leaves, strict=True)
    )


def _named(struct: object, names: list[str], tensors: Sequence[Any]) -> dict[str, Any]:
    if isinstance(struct, Mapping):
        return dict(struct)
    unique: dict[str, Any] = {}
    for name, tensor in zip(names, tensors, strict=True):
        plain, number = name, 1
        while plain in unique:
            plain, number = f"{name}_{number}", number + 1
        unique[plain] = tensor
    return unique


def _specs(tensors: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    import keras

    return tuple(
        TensorSpec(
            name,
            tuple(tensor.shape),
            "str"
            if tensor.dtype == "string"
            else keras.backend.standardize_dtype(tensor.dtype),
        )
        for name, tensor in tensors.items()
    )


def arranged(model: Any, tensors: Sequence[Any], signature: Signature) -> Any:
    """Return `tensors` (in the signature's order) in the structure that `model` is called with."""
    struct = getattr(model, "_inputs_struct", None)
    if struct is None:
        struct = getattr(model, "_build_shapes_dict", {}).get("input_shape")
    if isinstance(struct, Mapping):
        return dict(zip(signature.input_names, tensors, strict=True))
    return list(tensors) if len(tensors) > 1 or isinstance(struct, list) else tensors[0]


def by_name(model: Any, tensors: Sequence[Any], signature: Signature) -> list[Any]:
    """Return the outputs of `model` for `tensors`, both in the signature's order, not in training."""
    return outputs_of(
        model(arranged(model, tensors, signature), training=False), signature
    )


def outputs_of(result: Any, signature: Signature) -> list[Any]:
    """Return what a Keras model gave as a list in the signature's order."""
    if isinstance(result, Mapping):
        return [result[name] for name in signature.output_names]
    return list(result) if isinstance(result, list | tuple) else [result]


def save(model: Any, folder: Path) -> tuple[Path, bool]:
    """Write an in-memory model beneath `folder`; say whether it is a ``.keras`` file.

    It is saved as ``.keras`` where that loads again and answers alike, else exported as a SavedModel.
    """
    file = folder / "model.keras"
    try:
        model.save(file)
        load(file)
    # Whatever keeps a model from being saved and loaded again, exporting its graph is the other way.
    except Exception:  # noqa: BLE001
        file.unlink(missing_ok=True)
        model.export(str(folder / "saved_model"), verbose=False)
        return folder / "saved_model", False
    return file, True


def zeros_for(signature: Signature) -> list[NDArray[Any]]:
    """Return one sample of zeros for each input; free dimensions are 1."""
    return [
        np.zeros([n or 1 for n in spec.shape], spec.dtype) for spec in signature.inputs
    ]


def has_recurrent_layers(model: Any) -> bool:
    """Say whether `unrolled` would find anything to write out."""
    return any(
        "unroll" in part for layer in model.layers for part in _recurrent_parts(layer)
    )


def unrolled(model: Any) -> Any:
    """Return a copy of `model` whose recurrent layers are written out step by step."""
    import keras

    def copy(layer: Any) -> Any:
        config = layer.get_config()
        for part in _recurrent_parts(layer, config):
            if "unroll" in part:
                part["unroll"] = True
        return layer.__class__.from_config(config)

    copied = keras.models.clone_model(model, clone_function=copy)
    copied.set_weights(model.get_weights())
    return copied


def _recurrent_parts(
    layer: Any, config: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return a layer's configuration and those of the layers that it wraps."""
    config = layer.get_config() if config is None else config
    wrapped = (config.get(side) for side in ("layer", "backward_layer"))
    return [config, *(inner["config"] for inner in wrapped if isinstance(inner, dict))]
