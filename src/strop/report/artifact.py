"""The artifact: a finished model in a folder of its own, with its certificate and how to run it without strop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from strop.core import digest, registry
from strop.core.errors import ModelError, RecipeError, message
from strop.core.evaluation import Fidelity, Measurement
from strop.core.figures import spelled
from strop.core.model import Model, digest_of
from strop.core.parameters import Value
from strop.core.predictor import Predictor
from strop.core.recipe import Recipe
from strop.engine.executors.local import LocalExecutor
from strop.engine.lanes import of_running
from strop.engine.ledger import Trial
from strop.engine.machine import this_machine, versions
from strop.engine.outcome import Circumstances, Outcome
from strop.engine.store import draft_in, no_room, sweep_drafts
from strop.report.snippets import readme

CERTIFICATE = "certificate.json"
REFERENCE = "reference.npz"
_FORMAT = 1
_DRAFT = ".best-"


@dataclass(frozen=True)
class Made:
    """What an artifact is written from.

    Attributes:
        model: The model.
        recipe: How it was made, and is run.
        source: What it was made of.
        source_name: The source's name for people.
        fidelity: How well its answers survived; None where that could not be found out.
        command: What does it again.
        more: What else the certificate tells, plain values by name.
    """

    model: Model
    recipe: Recipe
    source: Model
    source_name: str
    fidelity: Fidelity | None
    command: str
    more: Mapping[str, Any]


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
    more = {
        "measurements": _measurements(best),
        "baseline": {
            "recipe": str(outcome.baseline.recipe),
            "measurements": _measurements(outcome.baseline),
        },
        "paired": pair.to_json() if pair else None,
        "goal": circumstances.goal.to_json(),
        "synthetic_samples": circumstances.synthetic,
    }
    made = Made(
        model, best.recipe, circumstances.source, circumstances.source_name,
        outcome.confirmed, circumstances.command, more,
    )  # fmt: skip
    write_model(folder, made, executor)


def _measurements(trial: Trial) -> dict[str, Any]:
    found = trial.evaluation.measurements if trial.evaluation else {}
    return {name: measured.to_json() for name, measured in found.items()}


def write_model(folder: Path, made: Made, executor: LocalExecutor) -> None:
    """Write an artifact into `folder`, in place of an earlier one, whole or not at all.

    Raises:
        OutputError: If there is no room.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep_drafts(folder.parent, _DRAFT)
        with draft_in(folder.parent, _DRAFT) as draft:
            _fill(draft, made, executor)
            _put_in_place(draft, folder)
    except OSError as error:
        raise no_room(folder.parent, error) from None


def _fill(draft: Path, made: Made, executor: LocalExecutor) -> None:
    recipe, fidelity = made.recipe, made.fidelity
    draft.chmod(0o755)
    kept = _copied(made.model, draft)
    executor.call(
        of_running(recipe.runtime, recipe.settings), "strop.report.artifact:write_reference",
        kept, recipe.runtime, recipe.settings, str(draft),
        timeout_seconds=300,
    )  # fmt: skip
    certificate = {
        "strop_certificate": _FORMAT,
        "source": {
            "name": made.source_name,
            "form": str(made.source.form),
            "digest": made.source.digest,
        },
        "model": replace(kept, path=kept.path.relative_to(draft)).to_json(),
        "recipe": recipe.to_json(),
        "recipe_line": str(recipe),
        "fidelity": fidelity.to_json() if fidelity else None,
        "machine": this_machine().to_json(),
        "versions": versions(),
        "command": made.command,
        "reference": {
            "file": REFERENCE,
            "digest": digest.of_path(draft / REFERENCE),
        },
        "verify": "strop verify .",
        **made.more,
    }
    text = json.dumps(spelled(certificate), indent=2, allow_nan=False)
    (draft / CERTIFICATE).write_text(text)
    (draft / "recipe.toml").write_text(recipe.to_toml())
    (draft / "README.md").write_text(readme(kept, recipe, made.source_name))


def _put_in_place(draft: Path, folder: Path) -> None:
    """Rename `draft` to `folder`; an artifact that stood there goes only once the new one stands."""
    old = folder.with_name(f".{folder.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


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

    inputs = one_batch(model.sized, model.binding.batch or 2, seed=7)
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
        _read_through(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecipeError):
        raise ModelError(
            message(f"'{file}' can't be read as a certificate.", "It may be damaged.")
        ) from None
    return data


def _read_through(certificate: dict[str, Any]) -> None:
    """Read all that anybody looks up in a certificate, so that what is missing shows at once."""
    Model.from_json(certificate["model"])
    Recipe.from_json(certificate["recipe"])
    if certificate["fidelity"]:
        Fidelity.from_json(certificate["fidelity"])
    for figure in certificate.get("measurements", {}).values():
        Measurement.from_json(figure)
    for text in (certificate["machine"]["processor"], certificate["reference"]["digest"]):
        if not isinstance(text, str):
            raise TypeError(text)


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
