"""The artifact: a finished model in a folder of its own, with its certificate and how to run it without strop."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from strop.core import digest, registry
from strop.core.contracts import Predictor
from strop.core.errors import ModelError, message
from strop.core.evaluation import Fidelity
from strop.core.model import Model, digest_of
from strop.core.parameters import Value
from strop.core.recipe import Recipe
from strop.engine.executors.local import LocalExecutor
from strop.engine.machine import this_machine, versions
from strop.engine.outcome import Circumstances, Outcome
from strop.engine.store import no_room
from strop.report.snippets import readme

CERTIFICATE = "certificate.json"
REFERENCE = "reference.npz"
_FORMAT = 1


def write_artifact(
    folder: Path,
    outcome: Outcome,
    circumstances: Circumstances,
    executor: LocalExecutor,
) -> None:
    """Write the winner of a study into `folder`, in place of an earlier one.

    Raises:
        OutputError: If there is no room.
    """
    best, model = outcome.best, outcome.model
    assert best is not None  # noqa: S101 - only a winner is written
    assert model is not None  # noqa: S101
    pair = outcome.pair_of(best)
    extra = {
        "measurements": best.evaluation.to_json()["measurements"] if best.evaluation else {},
        "baseline": {
            "recipe": str(outcome.baseline.recipe),
            "measurements": (
                outcome.baseline.evaluation.to_json() if outcome.baseline.evaluation else {}
            ),
        },
        "paired": pair.to_json() if pair else None,
        "goal": circumstances.goal.to_json(),
        "synthetic_samples": circumstances.synthetic,
    }
    _write(
        folder, model, best.recipe, circumstances.source, circumstances.source_name,
        outcome.confirmed, executor, circumstances.command, extra,
    )  # fmt: skip


def write_model(
    folder: Path,
    model: Model,
    recipe: Recipe,
    source: Model,
    source_name: str,
    fidelity: Fidelity,
    executor: LocalExecutor,
    command: str,
) -> None:
    """Write what one recipe made into `folder`."""
    _write(folder, model, recipe, source, source_name, fidelity, executor, command, {})


def _write(
    folder: Path,
    model: Model,
    recipe: Recipe,
    source: Model,
    source_name: str,
    fidelity: Fidelity | None,
    executor: LocalExecutor,
    command: str,
    extra: dict[str, Any],
) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".best-", dir=folder.parent))
        draft.chmod(0o755)
        kept = _copied(model, draft)
        executor.call(
            _lane(recipe), "strop.report.artifact:write_reference", kept, recipe.runtime, recipe.settings, str(draft),
            timeout_seconds=300,
        )  # fmt: skip
        certificate = {
            "strop_certificate": _FORMAT,
            "source": {
                "name": source_name,
                "form": str(source.form),
                "digest": source.digest,
            },
            "model": replace(kept, path=kept.path.relative_to(draft)).to_json(),
            "recipe": recipe.to_json(),
            "recipe_line": str(recipe),
            "fidelity": fidelity.to_json() if fidelity else None,
            "machine": this_machine().to_json(),
            "versions": versions(),
            "command": command,
            "reference": {
                "file": REFERENCE,
                "digest": digest.of_path(draft / REFERENCE),
            },
            "verify": "strop verify .",
            **extra,
        }
        (draft / CERTIFICATE).write_text(json.dumps(certificate, indent=2))
        (draft / "recipe.toml").write_text(recipe.to_toml())
        (draft / "README.md").write_text(readme(kept, recipe, source_name))
        old = folder.with_name(f".{folder.name}-old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise no_room(folder.parent, error) from None


def _lane(recipe: Recipe) -> str:
    if registry.runtimes.get(recipe.runtime).loads_tensorflow:
        return f"tensorflow artifact {recipe.settings}"
    return recipe.runtime


def _copied(model: Model, folder: Path) -> Model:
    """Return `model` with its files copied into `folder`."""
    for path in model.files:
        target = folder / path.name
        if path.is_dir():
            shutil.copytree(path, target)
        else:
            shutil.copyfile(path, target)
    return replace(model, path=folder / model.path.name)


def write_reference(model: Model, runtime: str, settings: dict[str, Value], folder: str) -> None:
    """Write a few made-up inputs and the artifact's answers to them, by which it can be checked anywhere."""
    from strop.engine.measure import one_batch

    inputs = one_batch(model.signature, model.binding.batch or 2, seed=7)
    with registry.runtimes.get(runtime).from_settings(settings).open(model) as predictor:
        outputs = predictor.run(inputs)
    arrays: dict[str, Any] = {f"input_{i}": array for i, array in enumerate(inputs.values())}
    arrays |= {f"output_{i}": array for i, array in enumerate(outputs)}
    np.savez(Path(folder) / REFERENCE, **arrays)


def read_certificate(folder: Path) -> dict[str, Any]:
    """Return the certificate of the artifact in `folder`.

    Raises:
        ModelError: If there is none, or it can't be read.
    """
    file = folder / CERTIFICATE
    if not file.exists():
        raise ModelError(
            message(
                f"'{folder}' is no artifact: there is no {CERTIFICATE} in it.",
                "An artifact is the folder best/ that strop optimize writes.",
                next_step="strop optimize model.keras --data val.npz",
            )
        )
    try:
        data: dict[str, Any] = json.loads(file.read_text())
        if data["strop_certificate"] != _FORMAT:
            raise ModelError(
                f"'{file}' is of version {data['strop_certificate']}; this strop reads version {_FORMAT}."
            )
    except (ValueError, KeyError, TypeError):
        raise ModelError(
            message(f"'{file}' can't be read as a certificate.", "It may be damaged.")
        ) from None
    return data


def model_of(folder: Path, certificate: dict[str, Any]) -> Model:
    """Return the artifact's model, its bytes held to the certificate.

    Raises:
        ModelError: If files are missing or have changed.
    """
    model = Model.from_json(certificate["model"], folder=folder)
    if not model.path.exists():
        raise ModelError(f"'{model.path}' is missing; the artifact is not whole.")
    if digest_of(model.form, model.path) != model.digest:
        raise ModelError(
            message(
                f"'{model.path}' is not the file that the certificate speaks of: its digest differs.",
                "It was changed or damaged after strop wrote it.",
            )
        )
    return model


def open_artifact(folder: Path) -> Predictor:
    """Return the artifact in `folder` opened in its runtime.

    Raises:
        ModelError: If it is no artifact, or its files have changed.
        MissingDependencyError: If its engine is not installed.
    """
    certificate = read_certificate(folder)
    recipe = Recipe.from_json(certificate["recipe"])
    runtime = registry.runtimes.get(recipe.runtime).from_settings(recipe.settings)
    return runtime.open(model_of(folder, certificate))
