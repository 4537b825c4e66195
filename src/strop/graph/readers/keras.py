"""Keras files: ``.keras``, and ``.h5`` of Keras 2 and 3."""

from __future__ import annotations

from pathlib import Path

from strop.core.model import Binding, Form, Model
from strop.graph.keras_files import load, needs_repair
from strop.graph.keras_models import signature_of
from strop.graph.quiet import quiet
from strop.graph.reading import Options, shaped


def read(path: Path, workspace: Path, options: Options) -> Model:
    """Return the Keras model; a legacy file that Keras 3 refuses is written anew beneath `workspace`."""
    with quiet():
        loaded = load(path, allow=options.allow)
        signature = shaped(signature_of(loaded), options, path)
        binding = Binding.plain(signature, batch=signature.batch)
        facts = {"allow": ["lambda"]} if "lambda" in options.allow else {}
        if not needs_repair(path):
            return Model.at(Form.KERAS, path.resolve(), signature, binding, **facts)
        repaired = workspace / "model.keras"
        loaded.save(repaired)
    note = "the file has arguments of Keras 2 that Keras 3 refuses; a repaired copy is used"
    return Model.at(Form.KERAS, repaired, signature, binding, notes=[note], **facts)
