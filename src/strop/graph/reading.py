"""Reading a source: what form a file or folder has, and the Model it is."""

from __future__ import annotations

import difflib
import importlib
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from strop.core.contracts import KERAS, LITERT, ONNX_RUNTIME, OPENVINO, TENSORFLOW
from strop.core.errors import (
    MissingDependencyError,
    ModelError,
    StropError,
    UnknownNameError,
    message,
)
from strop.core.model import Form, Model
from strop.core.signature import Shape, Signature, TensorSpec
from strop.graph.quiet import quiet
from strop.graph.refusal import gist

_SUFFIXES = {
    ".keras": Form.KERAS,
    ".h5": Form.KERAS,
    ".hdf5": Form.KERAS,
    ".pb": Form.GRAPH_DEF,
    ".pbtxt": Form.GRAPH_DEF,
    ".tflite": Form.LITERT,
    ".onnx": Form.ONNX,
    ".xml": Form.OPENVINO,
}
_TITLES = {
    Form.KERAS: "a Keras model",
    Form.SAVED_MODEL: "a SavedModel",
    Form.GRAPH_DEF: "a frozen graph",
    Form.LITERT: "a LiteRT flatbuffer",
    Form.ONNX: "an ONNX model",
    Form.OPENVINO: "an OpenVINO model",
}
_READ_WITH = {
    Form.KERAS: (TENSORFLOW, KERAS),
    Form.SAVED_MODEL: (TENSORFLOW,),
    Form.GRAPH_DEF: (TENSORFLOW,),
    Form.LITERT: (LITERT,),
    Form.ONNX: (ONNX_RUNTIME,),
    Form.OPENVINO: (OPENVINO,),
}
_ALLOWABLE = ("external-data", "file-ops", "lambda", "python-ops")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_KNOWN = ".keras, .h5, .hdf5, a SavedModel folder, .pb, .tflite, .onnx, .xml (OpenVINO)"


@dataclass(frozen=True)
class Options:
    """What the user says about a source beyond its path.

    Attributes:
        shapes: Full shapes by input name, for dimensions that must be known; None entries stay free.
        allow: Words that admit what is refused by default (``lambda``, ``file-ops``, ``python-ops``,
            ``external-data``).
        inputs: Tensor names to take as inputs, for a graph whose inputs can't be told.
        outputs: Likewise for outputs.
        signature: Which signature of a SavedModel.
        keep_custom_ops: Whether a frozen graph with operations that TensorFlow does not have is read, cut at them.
    """

    shapes: Mapping[str, Shape] = field(default_factory=dict)
    allow: frozenset[str] = frozenset()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    signature: str | None = None
    keep_custom_ops: bool = False

    def __post_init__(self) -> None:
        for word in self.allow:
            if word not in _ALLOWABLE:
                raise UnknownNameError("word to allow", word, _ALLOWABLE)


def detect(path: Path) -> Form:
    """Return the form of the model at `path`, by its content where that can be told.

    Raises:
        ModelError: If there is nothing, it is empty, it may not be read, or it is not what its name says.
    """
    try:
        return _detected(path)
    except OSError as error:
        raise ModelError(f"'{path}' can't be read: {error.strerror}.") from None


def _detected(path: Path) -> Form:
    if not path.exists():
        raise ModelError(message(f"there is no '{path}'.", f"A model is one of: {_KNOWN}."))
    if path.is_dir():
        if (path / "saved_model.pb").exists() or (path / "saved_model.pbtxt").exists():
            return Form.SAVED_MODEL
        raise ModelError(
            message(
                f"the folder '{path}' is no SavedModel: it holds no saved_model.pb.",
                f"A model is one of: {_KNOWN}.",
            )
        )
    if path.stat().st_size == 0:
        raise ModelError(message(f"the file '{path}' is empty.", f"A model is one of: {_KNOWN}."))
    if path.name in ("saved_model.pb", "saved_model.pbtxt"):
        raise ModelError(
            message(
                f"'{path}' is a part of a SavedModel, which is a folder.",
                "Give the folder.",
                next_step=str(path.parent),
            )
        )
    named, found = _SUFFIXES.get(path.suffix.lower()), _by_content(path)
    form = found or named
    if form is None:
        raise ModelError(
            message(
                f"'{path}' is of no form that is known.",
                f"A model is one of: {_KNOWN}.",
            )
        )
    if named and found and named is not found:
        raise ModelError(
            message(
                f"'{path}' is not what its name says: its content is that of {_TITLES[found]}.",
                "Give it the suffix that belongs to it.",
            )
        )
    if named and not found and named in (Form.KERAS, Form.LITERT, Form.OPENVINO):
        raise ModelError(
            message(
                f"'{path}' is not what its name says: it does not begin as {_TITLES[named]} does.",
                "It may be cut short, or another kind of file.",
            )
        )
    _refuse_other_archive(path)
    return form


def _refuse_other_archive(path: Path) -> None:
    """Refuse a Keras file of one kind under the other's suffix, and a zip archive without its end."""
    suffix, head = path.suffix.lower(), _head(path)
    if suffix == ".keras" and head.startswith(_HDF5):
        raise ModelError(
            message(
                f"'{path}' is not what its name says: it is an HDF5 file, as Keras 2 wrote them.",
                "Give it the suffix that belongs to it.",
                next_step=f"mv {path} {path.with_suffix('.h5')}",
            )
        )
    if suffix in (".h5", ".hdf5") and head.startswith(_ZIP):
        raise ModelError(
            message(
                f"'{path}' is not what its name says: it is a zip archive, as Keras 3 writes them.",
                "Give it the suffix that belongs to it.",
                next_step=f"mv {path} {path.with_suffix('.keras')}",
            )
        )
    if head.startswith(_ZIP) and not zipfile.is_zipfile(path):
        raise ModelError(
            message(
                f"'{path}' is cut short: it begins as a zip archive, and lacks the end of one.",
                "Copy it again, or save the model again.",
            )
        )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def _by_content(path: Path) -> Form | None:
    head = _head(path)
    if head.startswith((_HDF5, _ZIP)):
        return Form.KERAS
    if head[4:8] == b"TFL3":
        return Form.LITERT
    if (head.lstrip().startswith(b"<?xml") and b"<net " in head) or head.startswith(b"<net "):
        return Form.OPENVINO
    return None  # GraphDefs and ONNX models are bare protobufs; they show when they are parsed


def read(path: Path, workspace: Path, options: Options | None = None) -> Model:
    """Return the source at `path` as a Model; what can't be used as it is, is repaired beneath `workspace`.

    Args:
        path: The file or folder; never written to.
        workspace: An empty folder.
        options: What the user says about it.

    Raises:
        ModelError: If it can't be read, or is not what its name says.
        UnsafeModelError: If it would run code or touch files.
        MissingDependencyError: If what reads this form is not installed.
    """
    form = detect(path)
    for needed in _READ_WITH[form]:
        if not needed.is_met():
            raise MissingDependencyError(
                f"reading {_TITLES[form]}", needed.package, f"pip install strop[{needed.extra}]"
            )
    reader = importlib.import_module(f"strop.graph.readers.{form}")
    try:
        with quiet():
            model: Model = reader.read(path, workspace, options or Options())
    except StropError:
        raise
    # Parsers of broken files raise errors of every kind; each means that the file can't be read.
    except Exception as error:
        raise ModelError(
            message(
                f"'{path}' can't be read as {_TITLES[form]}: {gist(error)[:200]}",
                "It may be cut short or damaged.",
            )
        ) from error
    _refuse_strings(model, path)
    _refuse_no_arrays(model, path)
    return model


def shaped(
    signature: Signature,
    options: Options,
    path: Path,
    *,
    rankless: Collection[str] = (),
    sizes_stay: bool = True,
) -> Signature:
    """Return the signature with the shapes that the user gave.

    Args:
        signature: As the source has it.
        options: Whose `shapes` are taken.
        path: The source, for messages.
        rankless: Inputs of which the source tells no shape at all.
        sizes_stay: Whether a size that the source tells can't be another; then it stays where a ? is given too.

    Raises:
        ModelError: If a shape is missing, names no input, or can't be that input's.
    """
    missing = [name for name in rankless if name not in options.shapes]
    if missing:
        raise ModelError(
            message(
                f"'{path}' does not tell the shape of its input '{missing[0]}'.",
                "Give it, the batch first; a ? leaves a dimension free.",
                next_step=f"--shape {missing[0]}=?,224,224,3",
            )
        )
    known = {spec.name: spec for spec in signature.inputs}
    for name, shape in options.shapes.items():
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1) or list(known)
            raise ModelError(
                message(
                    f"'{path}' has no input '{name}', for which a shape is given.",
                    f"Its inputs: {', '.join(known)}.",
                    next_step=f"--shape {near[0]}={_spelled(shape)}",
                )
            )
        if name not in rankless and not _can_be(known[name], shape, sizes_stay=sizes_stay):
            raise ModelError(
                message(
                    f"'{path}' takes {known[name]}; the shape {_spelled(shape)} that is given can't be that.",
                    f"Give {len(known[name].shape)} dimensions, the batch first; sizes that are told stay.",
                    next_step=f"--shape {name}={_spelled(known[name].shape)}",
                )
            )
    if not sizes_stay:
        return signature.with_shapes(options.shapes)
    return signature.with_shapes(
        {
            name: shape if name in rankless else _told_or_given(known[name].shape, shape)
            for name, shape in options.shapes.items()
        }
    )


def _told_or_given(told: Shape, given: Shape) -> Shape:
    return tuple(
        theirs if ours is None else ours for ours, theirs in zip(told, given, strict=True)
    )


def _can_be(spec: TensorSpec, shape: Shape, *, sizes_stay: bool) -> bool:
    return len(spec.shape) == len(shape) and all(
        told is None or given is None or told == given or not sizes_stay
        for told, given in zip(spec.shape, shape, strict=True)
    )


def _spelled(shape: Shape) -> str:
    return ",".join("?" if size is None else str(size) for size in shape)


def _refuse_no_arrays(model: Model, path: Path) -> None:
    """Refuse what goes in or comes out and is no array: ONNX has lists and tables too, TensorFlow handles."""
    for spec in (*model.signature.inputs, *model.signature.outputs):
        if "(" in spec.dtype or spec.dtype in ("resource", "variant"):
            raise ModelError(
                message(
                    f"'{path}' has '{spec.name}' as {spec.dtype}, which is no array.",
                    "Take off the operation that makes it (ZipMap, in a classifier from scikit-learn).",
                    next_step='convert_sklearn(model, ..., options={"zipmap": False})',
                )
            )


def _refuse_strings(model: Model, path: Path) -> None:
    texts = [spec.name for spec in model.signature.inputs if spec.dtype in ("str", "object")]
    if texts:
        raise ModelError(
            message(
                f"'{path}' takes strings ({', '.join(texts)}), which most engines can't.",
                "Split the text preprocessing off: apply the TextVectorization (or lookup) layer to the data, "
                "and give the model that begins behind it.",
                next_step="keras.Model(vectorize.output, model.output).save('behind.keras')",
            )
        )
