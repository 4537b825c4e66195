"""Model: an immutable value for a model in one form, on disk; and how that form spells the signature."""

from __future__ import annotations

import contextlib
import enum
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.core import digest
from strop.core.signature import Arrays, Signature


class Form(enum.StrEnum):
    """How a model is written down."""

    KERAS = "keras"
    SAVED_MODEL = "saved_model"
    GRAPH_DEF = "graph_def"
    LITERT = "litert"
    ONNX = "onnx"
    OPENVINO = "openvino"


@dataclass(frozen=True)
class TensorBinding:
    """How a form spells one logical tensor.

    A logical array becomes the form's by `permutation`, then by scale and zero point, then by `dtype`.

    Attributes:
        name: The form's own name of the tensor.
        index: Its position among the form's inputs (or outputs).
        dtype: NumPy's name of the form's element type.
        permutation: Order of the logical axes as the form has them (NHWC to NCHW is ``(0, 3, 1, 2)``);
            None where they are the same.
        scale: Real distance between neighbouring codes of a quantized tensor; None for a real one.
        zero_point: The code that stands for real 0.0.
    """

    name: str
    index: int
    dtype: str
    permutation: tuple[int, ...] | None = None
    scale: float | None = None
    zero_point: int = 0

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a logical array as the form wants it; the same object where nothing differs."""
        if self.permutation is not None:
            array = array.transpose(self.permutation)
        if self.scale is not None:
            limits = np.iinfo(self.dtype)
            codes = np.rint(array / np.float32(self.scale)) + self.zero_point
            array = np.clip(codes, limits.min, limits.max)
        return array.astype(self.dtype, copy=False)

    def decode(self, array: NDArray[Any], dtype: str) -> NDArray[Any]:
        """Return a tensor of the form as the logical array of `dtype`."""
        if self.scale is not None:
            array = (array.astype(np.float32) - np.float32(self.zero_point)) * np.float32(
                self.scale
            )
        if self.permutation is not None:
            array = array.transpose(np.argsort(self.permutation))
        return array.astype(dtype, copy=False)

    def is_plain(self, dtype: str) -> bool:
        """Say whether the form's tensor and the logical one of `dtype` are the same array."""
        return self.permutation is None and self.scale is None and self.dtype == dtype


@dataclass(frozen=True)
class Binding:
    """How a form spells the whole signature.

    Attributes:
        inputs: One for each input of the signature, in its order.
        outputs: One for each output of the signature, in its order.
        batch: The one batch size that the form was fixed to; None where it takes any.
    """

    inputs: tuple[TensorBinding, ...]
    outputs: tuple[TensorBinding, ...]
    batch: int | None = None

    @classmethod
    def plain(
        cls,
        signature: Signature,
        input_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
        *,
        batch: int | None = None,
    ) -> Binding:
        """Return the binding of a form that differs from the signature in names alone, or not at all."""
        ins, outs = (
            input_names or signature.input_names,
            output_names or signature.output_names,
        )
        return cls(
            tuple(
                TensorBinding(name, i, spec.dtype)
                for i, (name, spec) in enumerate(zip(ins, signature.inputs, strict=True))
            ),
            tuple(
                TensorBinding(name, i, spec.dtype)
                for i, (name, spec) in enumerate(zip(outs, signature.outputs, strict=True))
            ),
            batch,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` takes back."""
        return {
            "inputs": [vars(t) for t in self.inputs],
            "outputs": [vars(t) for t in self.outputs],
            "batch": self.batch,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Binding:
        """Return what `to_json` was called on."""
        return cls(
            tuple(_tensor_binding(t) for t in data["inputs"]),
            tuple(_tensor_binding(t) for t in data["outputs"]),
            data["batch"],
        )


def _tensor_binding(data: Mapping[str, Any]) -> TensorBinding:
    permutation = data.get("permutation")
    return TensorBinding(**{**data, "permutation": tuple(permutation) if permutation else None})


@dataclass(frozen=True)
class Model:
    """A model in one form, on disk. Nobody changes it; a pass returns another.

    Attributes:
        form: How it is written down.
        path: The file or folder; for ``openvino`` the ``.xml`` whose ``.bin`` lies beside it.
        signature: The logical inputs and outputs, the original's.
        binding: How this form spells them.
        digest: Of what lies at `path` (and beside it, for ``openvino``), see `digest_of`; guards integrity.
        lineage: The passes that made it, one line each; empty for a source.
        facts: What passes found worth telling, plain values by name: ``left_in_float`` (layer name to
            reason), ``left_alone`` (likewise for layers that it treated less than it was asked to), ``notes`` (sentences),
            ``seen`` (the samples' sizes by input; see `sized`), ``content`` (a source's digest of what it computes,
            where its bytes differ from save to save).
    """

    form: Form
    path: Path
    signature: Signature
    binding: Binding
    digest: str
    lineage: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def at(
        cls,
        form: Form,
        path: Path,
        signature: Signature,
        binding: Binding | None = None,
        **facts: Any,
    ) -> Model:
        """Return the model that lies at `path`, digested."""
        binding = binding or Binding.plain(signature)
        return cls(form, path, signature, binding, digest_of(form, path), (), facts)

    def derive(
        self,
        step: object,
        form: Form,
        path: Path,
        binding: Binding | None = None,
        **facts: Any,
    ) -> Model:
        """Return what the pass `step` made of this model: same signature, lineage one longer.

        Args:
            step: The pass; its `str` is the line in the lineage.
            form: The form of the result.
            path: Where the result lies.
            binding: How the result spells the signature; this model's where nothing changed.
            **facts: Laid over this model's facts.
        """
        return replace(
            self,
            form=form,
            path=path,
            binding=binding or self.binding,
            digest=digest_of(form, path),
            lineage=(*self.lineage, str(step)),
            facts={**self.facts, **facts},
        )

    def seen_with(self, inputs: Arrays) -> Model:
        """Return the model remembering the sizes of the user's samples, for what its signature leaves open."""
        sizes = {name: list(array.shape[1:]) for name, array in inputs.items()}
        return replace(self, facts={**self.facts, "seen": sizes})

    @property
    def sized(self) -> Signature:
        """The signature with the sizes of the user's samples where it leaves them open, but for the batch."""
        seen = self.facts.get("seen", {})
        return self.signature.with_shapes({name: (None, *rest) for name, rest in seen.items()})

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything on disk that belongs to the model."""
        return files_of(self.form, self.path)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(_bytes_of(path) for path in self.files)

    def identity(self) -> str:
        """Return a digest of all that the answers depend on: one file may be served in several ways."""
        content = self.digest if self.lineage else self.facts.get("content", self.digest)
        known = {**self.to_json(), "path": None, "lineage": None, "digest": content}
        return digest.of_value({**known, "facts": self.facts.get("served")})

    def to_json(self) -> dict[str, Any]:
        """Return plain values that `from_json` takes back (the path as it is)."""
        return {
            "form": str(self.form),
            "path": str(self.path),
            "signature": self.signature.to_json(),
            "binding": self.binding.to_json(),
            "digest": self.digest,
            "lineage": list(self.lineage),
            "facts": json.loads(json.dumps(dict(self.facts), default=str)),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, folder: Path | None = None) -> Model:
        """Return what `to_json` was called on; a relative path is taken from `folder`."""
        path = Path(data["path"])
        return cls(
            Form(data["form"]),
            folder / path if folder and not path.is_absolute() else path,
            Signature.from_json(data["signature"]),
            Binding.from_json(data["binding"]),
            data["digest"],
            tuple(data["lineage"]),
            data["facts"],
        )


def files_of(form: Form, path: Path) -> tuple[Path, ...]:
    """Return everything on disk that belongs to a model of `form` at `path`."""
    beside = path.with_suffix(".bin")
    if form is Form.OPENVINO and beside.exists():
        return path, beside
    if form is Form.ONNX:
        data = path.with_name(path.name + ".data")  # where strop writes weights beyond 2 GB
        return (path, data) if data.exists() else (path,)
    return (path,)


def digest_of(form: Form, path: Path) -> str:
    """Return the digest of what a model of `form` at `path` holds: of all its bytes, or of a Keras archive's contents.

    Keras writes the date into each archive, so its bytes differ from save to save of one model.
    """
    if form is Form.KERAS and zipfile.is_zipfile(path):
        # A damaged archive is named by its bytes; whoever reads it will tell what is wrong with it.
        with contextlib.suppress(*_DAMAGED):
            return _digest_of_archive(path)
    return digest.of_value([digest.of_path(file) for file in files_of(form, path)])


_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError)
_DATED = "metadata.json"  # the date and Keras' version, which is no part of the model
_CONFIGURATION = "config.json"


def _digest_of_archive(path: Path) -> str:
    members: dict[str, str] = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(
                name
            ) as member:  # reading to the end checks its checksum, the dated one's too
                members[name] = digest.of_stream(member)
        members.pop(_DATED, None)
        if _CONFIGURATION in members:
            config = json.loads(archive.read(_CONFIGURATION))
            members[_CONFIGURATION] = digest.of_value(_numbered(config, {}))
    return digest.of_value(members)


def _numbered(config: Any, numbers: dict[Any, int]) -> Any:
    """Return `config` with shared objects numbered as they come: Keras writes where they lay in memory."""
    if isinstance(config, dict):
        return {
            key: numbers.setdefault(value, len(numbers))
            if key == "shared_object_id" and isinstance(value, int)
            else _numbered(value, numbers)
            for key, value in config.items()
        }
    return [_numbered(value, numbers) for value in config] if isinstance(config, list) else config


def _bytes_of(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)
