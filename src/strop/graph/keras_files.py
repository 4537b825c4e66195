"""Keras files: loaded without running what they carry, repaired where Keras 3 refuses Keras 2, saved so that they load again."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from strop.core.errors import ModelError, UnsafeModelError, message
from strop.core.model import Form, Model
from strop.graph.keras_models import typed_inputs

# Arguments that Keras 2 wrote and Keras 3 refuses, with the values at which they say nothing.
_STRAY_ARGUMENTS: dict[str, tuple[str, tuple[object, ...]]] = {
    "DepthwiseConv2D": ("groups", (None, 1)),
    "LSTM": ("time_major", (None, False)),
    "GRU": ("time_major", (None, False)),
    "SimpleRNN": ("time_major", (None, False)),
    "RNN": ("time_major", (None, False)),
    "Bidirectional": ("time_major", (None, False)),
}
_KERAS_3_ARCHIVE = "a .keras file is a zip archive that holds a config.json."
_UNKNOWN_OBJECT = re.compile(
    r"(?:Could not locate (class|function)|Unknown (layer|activation function|initializer|object)):? '([^']+)'"
)


def load(path: Path, *, allow: Collection[str] = (), compiled: bool = False) -> Any:
    """Return the Keras model in a ``.keras`` or ``.h5`` file.

    Args:
        path: The file.
        allow: ``lambda`` admits Lambda layers, which are Python code in the file.
        compiled: Whether it is to have the loss and the optimizer that it was saved with, where these can be had.

    Raises:
        UnsafeModelError: If the model carries code and `allow` does not admit it.
        ModelError: If the file can't be read, or names a class that isn't known.
    """
    import keras

    try:
        config = configuration(path)
        _refuse_code(config, path, allow)
        with _loadable(path, config) as file:
            if compiled:
                # A loss, a metric or an optimizer of somebody's own has no place that is known; the model may be fine
                # without.
                with contextlib.suppress(Exception):
                    return keras.models.load_model(file, safe_mode="lambda" not in allow)
            model = keras.models.load_model(file, compile=False, safe_mode="lambda" not in allow)
            if compiled:
                _compile_in_part(model, _compile_configuration(file))
            return model
    except ModelError:
        raise
    # h5py, zipfile, json and Keras raise errors of many kinds for one and the same thing: a file that is not good.
    except Exception as error:
        raise _unreadable(path, error) from error


def opened(model: Model, *, compiled: bool = False) -> Any:
    """Return the Keras model that a model of form ``keras`` is, admitting what its reader was told to; see `load`."""
    return load(model.path, allow=model.facts.get("allow", ()), compiled=compiled)


def saved_bare(model: Model, path: str) -> Model:
    """Return a model of form ``keras`` saved anew at `path` without its optimizer, whose state may be twice its weights."""
    opened(model).save(path)
    return Model.at(Form.KERAS, Path(path), model.signature, model.binding)


def lost_loss(model: Model) -> str:
    """Return the name of the loss that a model of form ``keras`` was compiled with and that can't be had; else nothing."""
    loss = _compile_configuration(model.path).get("loss")
    try:
        _loss_of(loss)
    # Whatever keeps it from being had again.
    except Exception:  # noqa: BLE001
        named = (
            part.get("config") for part in parts(loss) if part.get("class_name") == "function"
        )
        classes = (str(part["class_name"]) for part in parts(loss) if "class_name" in part)
        return str(next(named, None) or next(classes, loss))
    return ""


def _compile_configuration(path: Path) -> dict[str, Any]:
    """Return the ``optimizer``, ``loss`` and ``loss_weights`` that a file says its model was compiled with, as they are written."""
    if zipfile.is_zipfile(path):
        return configuration(path).get("compile_config") or {}
    import h5py

    with h5py.File(path, "r") as file:
        found = json.loads(file.attrs.get("training_config") or "{}")
    return {**found, "optimizer": found.get("optimizer_config")}


def _compile_in_part(model: Any, written: Mapping[str, Any]) -> None:
    """Compile a model with its loss and its optimizer, as far as there is one and it can be had; metrics teach nothing."""
    import keras

    loss = optimizer = None
    with contextlib.suppress(Exception):
        loss = _loss_of(written.get("loss"))
    with contextlib.suppress(Exception):
        optimizer = keras.optimizers.get(written.get("optimizer"))
    if loss is not None or optimizer is not None:
        model.compile(
            optimizer=optimizer or "adam", loss=loss, loss_weights=written.get("loss_weights")
        )


def _loss_of(written: Any) -> Any:
    """Return the losses that are written down, in the mappings and lists that they are in."""
    import keras

    if isinstance(written, list):
        return [_loss_of(one) for one in written]
    if isinstance(written, dict) and "class_name" not in written:
        return {name: _loss_of(one) for name, one in written.items()}
    return keras.losses.get(written)


def configuration(path: Path) -> Any:
    """Return what a Keras file says of its architecture, as plain values.

    Raises:
        ModelError: If the file holds no architecture.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "config.json" not in archive.namelist():
                raise ModelError(
                    message(
                        f"'{path}' is a zip archive, but no Keras model: it holds no config.json.",
                        _KERAS_3_ARCHIVE.capitalize(),
                    )
                )
            return json.loads(archive.read("config.json"))
    import h5py

    if not h5py.is_hdf5(path):
        raise ModelError(
            message(
                f"'{path}' is neither a zip archive (.keras) nor an HDF5 file (.h5); it may be cut short.",
                "Save the model again, or copy the file again.",
                next_step="model.save('model.keras')",
            )
        )
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
    return json.loads(text)


def needs_repair(path: Path) -> bool:
    """Say whether `path` is a legacy file that only `load` here can load, not Keras 3 by itself."""
    return any(_stray_arguments(configuration(path)))


@contextlib.contextmanager
def _loadable(path: Path, config: Any) -> Iterator[Path]:
    """Give `path`, or a passing copy of it in which Keras 3 finds nothing that it refuses."""
    strays = list(_stray_arguments(config))
    if not strays:
        yield path
        return
    for layer, name in strays:
        del layer[name]
    with tempfile.TemporaryDirectory(prefix="strop-") as folder:
        # Keras tells the two kinds of file apart by their suffix.
        if zipfile.is_zipfile(path):
            copy = Path(folder) / "model.keras"
            _write_archive(path, copy, json.dumps(config))
        else:
            copy = Path(folder) / "model.h5"
            _write_hdf5(path, copy, json.dumps(config))
        yield copy


def _write_archive(path: Path, copy: Path, config: str) -> None:
    """Write the ``.keras`` archive at `path` anew, with another configuration."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as other:
        for entry in archive.infolist():
            if entry.filename == "config.json":
                other.writestr(entry, config)
                continue
            with archive.open(entry) as source, other.open(entry, "w") as target:
                shutil.copyfileobj(source, target)


def _write_hdf5(path: Path, copy: Path, config: str) -> None:
    """Copy the HDF5 file at `path`, with another configuration."""
    import h5py

    shutil.copyfile(path, copy)
    copy.chmod(0o600)
    with h5py.File(copy, "r+") as file:
        file.attrs["model_config"] = config


def _stray_arguments(config: object) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield (layer configuration, argument) for each argument that means nothing and that Keras 3 refuses."""
    for part in parts(config):
        name, harmless = _STRAY_ARGUMENTS.get(str(part.get("class_name")), ("", ()))
        inner = part.get("config")
        if isinstance(inner, dict) and name in inner and inner[name] in harmless:
            yield inner, name


def parts(config: object) -> Iterator[dict[str, Any]]:
    """Yield each mapping within a configuration, however deep, the whole among them."""
    if isinstance(config, dict):
        yield config
        for value in config.values():
            yield from parts(value)
    elif isinstance(config, list):
        for value in config:
            yield from parts(value)


def _refuse_code(config: object, path: Path, allow: Collection[str]) -> None:
    if "lambda" in allow:
        return
    for part in parts(config):
        if part.get("class_name") == "Lambda":
            inner = part.get("config")
            name = inner.get("name", "") if isinstance(inner, dict) else ""
            raise _unsafe(path, name)


def _unsafe(path: Path, layer: str) -> UnsafeModelError:
    named = f" ('{layer}')" if layer else ""
    return UnsafeModelError(
        message(
            f"'{path}' has a Lambda layer{named}, which is Python code inside the file.",
            "Loading it would run that code. If you trust where it comes from, allow it:",
            next_step="--allow lambda",
        ),
        allow="lambda",
    )


def _unreadable(path: Path, error: Exception) -> ModelError:
    text = str(error)
    if "safe_mode=False" in text:
        return _unsafe(path, "")
    unknown = _UNKNOWN_OBJECT.search(text)
    if unknown:
        kind = unknown.group(1) or unknown.group(2)
        return ModelError(
            message(
                f"'{path}' uses the {kind} '{unknown.group(3)}', which Keras does not have.",
                "Its code is not in the file. Where that code is, export the model as a SavedModel, which carries "
                "its graph along; strop optimize takes that, and what is to be taught has to be of Keras' own layers:",
                next_step="model.export('saved_model_folder')",
            )
        )
    return ModelError(
        message(
            f"'{path}' can't be read as a Keras model: {_innermost(text) or type(error).__name__}",
            "It may be cut short, or written by a version of Keras that this one does not understand.",
            next_step=f"python -c \"import keras; keras.models.load_model('{path}')\"",
        )
    )


def _innermost(text: str) -> str:
    """Return the first line of the deepest error that Keras tells of; it wraps each in the next."""
    deepest = text.rsplit("Exception encountered:", 1)[-1]
    return next((line.strip() for line in deepest.splitlines() if line.strip()), "")[:200]


def save(model: Any, folder: Path) -> tuple[Path, bool]:
    """Write an in-memory model beneath `folder`; say whether it is a ``.keras`` file.

    It is saved as ``.keras`` where any process can load that again; else (code of its own, a subclass of
    `keras.Model`, Lambda layers) its graph is exported as a SavedModel, which needs no code.

    Args:
        model: A built `keras.Model`; it is not changed.
        folder: Where to write.

    Raises:
        ModelError: If it can be written in neither way.
    """
    file, exported = folder / "model.keras", folder / "saved_model"
    try:
        model.save(file)
        # A loss of one's own is no part of the function; what can't be had of it again is done without.
        if not has_foreign_code({**configuration(file), "compile_config": None}):
            load(file)
            return file, True
    # Whatever keeps a model from being saved and loaded again, exporting its graph is the other way.
    except Exception:  # noqa: BLE001
        pass
    file.unlink(missing_ok=True)
    try:
        model.export(str(exported), verbose=False, input_signature=typed_inputs(model))
    # Keras traces the model here, and a model's own code may raise anything.
    except Exception as error:
        raise ModelError(
            message(
                f"the model '{model.name}' can be neither saved nor exported: {_innermost(str(error))}",
                "Call it once on a batch of real inputs, so that all of its layers are built. Where that was done, say "
                "what its inputs are (an Input each, with the dtype), and give what comes of it:",
                next_step="x = keras.Input((16,), dtype='int32'); keras.Model(x, model(x))",
            )
        ) from error
    return exported, False


def has_foreign_code(config: object) -> bool:
    """Say whether a configuration names classes or functions that are not Keras' own.

    A class registered in this process loads here and nowhere else, so trying is no test.
    """
    return any(
        part.get("class_name") in ("Lambda", "function")
        or not str(part.get("module") or "").startswith(("keras", "builtins"))
        for part in parts(config)
        if {"class_name", "config", "module"} <= part.keys()
    )
