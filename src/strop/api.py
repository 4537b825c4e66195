"""The public functions, each a few lines over the layers beneath."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from strop.core import digest, registry
from strop.core.contracts import Effort, Predictor
from strop.core.errors import GoalError, InputError, OutputError, message
from strop.core.evaluation import Fidelity, Goal, Objective
from strop.core.model import Form, Model
from strop.core.recipe import Recipe
from strop.core.samples import Splits
from strop.data.raw import Preparation
from strop.engine.context import Bench, baseline_recipe
from strop.engine.executors.local import LocalExecutor
from strop.engine.ledger import Ledger, Trial
from strop.engine.machine import this_machine, versions
from strop.engine.outcome import Circumstances, Outcome
from strop.engine.pairs import Pair, compare
from strop.engine.running import Declined, Runner
from strop.engine.store import Store
from strop.engine.verification import Check, Opened
from strop.graph.describing import Description
from strop.graph.reading import Options, detect
from strop.report.artifact import (
    CERTIFICATE,
    model_of,
    open_artifact,
    read_certificate,
    write_artifact,
)
from strop.report.folder import write_reports
from strop.search.events import Event, Listener, Note, StageStarted, StudyFinished
from strop.search.space import Space
from strop.search.study import PACES, Study

_MARK = "strop-study.json"


def _ignore(event: Event) -> None:
    """Listen to nothing."""


@dataclass(frozen=True)
class Result:
    """What `optimize` found.

    Attributes:
        folder: Where everything lies: ``best/``, ``report.html``, ``report.md``, ``trials.csv``, ``study/``.
        outcome: Every trial, the winner, the paired comparisons.
        circumstances: Machine, versions, samples, metric, command.
    """

    folder: Path
    outcome: Outcome
    circumstances: Circumstances

    @property
    def best(self) -> Artifact:
        """The winner.

        Raises:
            GoalError: If nothing met the limits; what came nearest is named.
        """
        if self.outcome.best is None:
            from strop.report.words import headline

            raise GoalError(headline(self.outcome, self.circumstances))
        return Artifact(self.folder / "best", self.outcome.best)

    @property
    def frontier(self) -> tuple[Trial, ...]:
        """The trials that nothing else beats in both time and quality, fastest first."""
        from strop.report.frontier import frontier

        return frontier(self.outcome, self.circumstances.goal)

    def report(self) -> str:
        """Return the report as Markdown; ``report.html`` lies in `folder`."""
        from strop.report.markdown import markdown

        return markdown(self.outcome, self.circumstances)

    def _repr_html_(self) -> str:
        from strop.report.page import notebook

        return notebook(self.outcome, self.circumstances)


@dataclass(frozen=True)
class Artifact:
    """A finished model with all that it needs to run.

    Attributes:
        folder: Where it lies, with its certificate.
        trial: The trial that made it.
    """

    folder: Path
    trial: Trial

    def predictor(self) -> Predictor:
        """Return it opened in its runtime."""
        return load(self.folder)


@dataclass(frozen=True)
class Request:
    """All that `optimize` is asked, as plain values; what it defaults to.

    Attributes:
        goal: What to minimize under which limits.
        effort: ``quick``, ``standard`` or ``thorough``.
        budget_seconds: After which the search ends with the best so far; None for no limit.
        seed: For every random choice.
        options: What is said about the source.
        preparation: What is done to inputs.
        runtimes: The only runtimes to consider; empty for all that are installed.
        step_seconds: After which one conversion or evaluation is ended.
        command: What the report says does it again.
    """

    goal: Goal = field(default_factory=Goal)
    effort: Effort = Effort.STANDARD
    budget_seconds: float | None = None
    seed: int = 0
    options: Options = field(default_factory=Options)
    preparation: Preparation = field(default_factory=Preparation)
    runtimes: tuple[str, ...] = ()
    step_seconds: float = 600.0
    command: str = "strop.optimize(model, samples)"


def optimize(
    model: Any,
    samples: Any = None,
    *,
    max_drop: float = 0.01,
    minimize: Objective = "latency",
    batch_sizes: tuple[int, ...] = (1,),
    metric: str | None = None,
    confidence: float | None = None,
    effort: str = "standard",
    budget_seconds: float | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    listen: Listener = _ignore,
    request: Request | None = None,
) -> Result:
    """Return the fastest (or smallest) model that still gives the right answers, with the proof.

    Args:
        model: A path (``.keras``, ``.h5``, a SavedModel folder, ``.pb``, ``.tflite``, ``.onnx``, ``.xml``) or a
            `keras.Model`.
        samples: A path, ``package.module:function``, or Python objects: see `strop.data.reading.read`.
            Without any, inputs are made up, and agreement with the original is judged.
        max_drop: The most that quality may drop: absolute for metrics in [0, 1], relative for errors.
        minimize: ``latency``, ``throughput``, ``size``, ``memory`` or ``cold-start``.
        batch_sizes: Batch sizes to measure; the objective is taken at the first.
        metric: The quality metric's name or ``package.module:function``; picked where None.
        confidence: Where given, the limit holds for the drop's upper bound at this level.
        effort: ``quick``, ``standard`` or ``thorough``.
        budget_seconds: After which the search ends with the best so far.
        output: The folder to write; ``<model>-strop`` in the current folder where None.
        seed: For every random choice.
        listen: Told what happens.
        request: All of the above and more as one value, in place of them.

    Raises:
        InputError: If model or samples can't be used.
        NothingWorkedError: If not even the model itself runs.
    """
    asked = request or Request(
        Goal(minimize, max_drop, confidence, None, tuple(batch_sizes), metric),
        Effort(effort),
        budget_seconds,
        seed,
    )
    _check_runtimes(asked.runtimes)
    folder, is_new = _output_folder(model, output)
    ledger = Ledger(folder / "study")
    try:
        with LocalExecutor((str(Path.cwd()),)) as executor:
            result = _optimize(model, samples, asked, folder, ledger, executor, listen)
    except InputError:
        # Nothing was begun that could be gone on with, so nothing stays behind.
        ledger.close()
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        ledger.close()
    from strop.report.words import headline

    listen(StudyFinished(str(folder), headline(result.outcome, result.circumstances)))
    return result


def _optimize(
    model: Any,
    samples: Any,
    asked: Request,
    folder: Path,
    ledger: Ledger,
    executor: LocalExecutor,
    listen: Listener,
) -> Result:
    listen(StageStarted("reading"))
    store = Store(folder / "study" / "store")
    prepared = _prepare(model, samples, asked, store, executor, listen)
    source, splits, bench, name = prepared
    bench = replace(bench, judged=PACES[asked.effort].judged)
    runner = Runner(source, store, executor, bench, splits.digest(), asked.step_seconds)
    machine = this_machine()
    space = Space(
        source.form,
        asked.effort,
        {"cores": machine.cores, "batch": asked.goal.batch},
        asked.runtimes,
    )
    study = Study(
        runner,
        ledger,
        space,
        asked.effort,
        baseline_recipe(source.form),
        listen,
        asked.budget_seconds,
    )
    outcome = study.run()
    question = bench.question(source)
    circumstances = Circumstances(
        name,
        source,
        asked.goal,
        question.because if question else _without_targets(splits),
        splits.synthetic,
        (*source.facts.get("notes", ()), *splits.notes),
        machine.to_json(),
        versions(),
        asked.command,
        dt.datetime.now(dt.UTC).date().isoformat(),
        str(asked.effort),
    )
    if outcome.best and outcome.model:
        write_artifact(folder / "best", outcome, circumstances, executor)
    write_reports(folder, outcome, circumstances)
    return Result(folder, outcome, circumstances)


def _without_targets(splits: Splits) -> str:
    what = "made-up inputs" if splits.synthetic else "the samples"
    return f"without targets, the agreement with the original on {what} is judged"


def _prepare(
    model: Any,
    samples: Any,
    asked: Request,
    store: Store,
    executor: LocalExecutor,
    listen: Listener,
) -> tuple[Model, Splits, Bench, str]:
    """Read source and samples, split, and have the original answer them."""
    workspace = store.folder.parent / "source"
    source, name = _read_source(model, asked, workspace, executor)
    for note in source.facts.get("notes", ()):
        listen(Note(note))
    splits = _read_samples(samples, source, asked, store.folder.parent, executor)
    for note in splits.notes:
        listen(Note(note))
    data = splits.digest()
    key = digest.of_value([source.digest, data, asked.seed])[:32]
    bench = Bench(
        store.folder.parent / "samples" / data[:32],
        store.folder.parent / "answers" / key,
        asked.goal,
        asked.seed,
    )
    floor_file = bench.reference / "floor.json"
    if not floor_file.exists():
        recipe = baseline_recipe(source.form)
        listen(StageStarted("the original's own answers"))
        floor = executor.call(
            "tensorflow threads=0 auto=False" if source.form in _TENSORFLOW else recipe.runtime,
            "strop.engine.tasks:answer_all",
            source, recipe.runtime, {}, str(bench.splits), str(bench.reference),
            timeout_seconds=asked.step_seconds,
        )  # fmt: skip
        floor_file.write_text(json.dumps(floor))
    floor = json.loads(floor_file.read_text())
    if floor:
        listen(
            Note(
                f"two calls of the original differ by {floor:.3g} (dropout left on, random operations, or "
                "state); candidates are not held to less"
            )
        )
    bench = replace(bench, floor=floor)
    question = bench.question(source)
    listen(Note(question.because if question else _without_targets(splits)))
    return source, splits, bench, name


_TENSORFLOW = (Form.KERAS, Form.SAVED_MODEL, Form.GRAPH_DEF)


def _read_source(
    model: Any, asked: Request, workspace: Path, executor: LocalExecutor
) -> tuple[Model, str]:
    workspace.mkdir(parents=True, exist_ok=True)
    if isinstance(model, str | Path):
        path, name = Path(model), Path(model).name
    else:
        from strop.graph.keras_files import save

        path, is_keras = save(model, workspace)
        name = str(getattr(model, "name", "model"))
        del is_keras
    form = detect(path)
    lane = "convert" if form in _TENSORFLOW else "light"
    source: Model = executor.call(
        lane, "strop.engine.tasks:read_source", str(path), str(workspace), asked.options,
        timeout_seconds=asked.step_seconds,
    )  # fmt: skip
    return source, name


def _read_samples(
    samples: Any, source: Model, asked: Request, folder: Path, executor: LocalExecutor
) -> Splits:
    """Read and split the samples; those named by a path or function are read in a worker."""
    if samples is None or not isinstance(samples, str | Path):
        from strop.engine.sampling import draw

        place = draw(samples, source, asked.preparation, asked.seed, folder / "samples")
    else:
        place = executor.call(
            "convert" if source.form in _TENSORFLOW else "light",
            "strop.engine.sampling:draw",
            str(samples), source, asked.preparation, asked.seed, folder / "samples",
            timeout_seconds=asked.step_seconds,
        )  # fmt: skip
    return Splits.load(place)


def _check_runtimes(names: Sequence[str]) -> None:
    """Hold the runtimes that were asked for to what there is and what is installed."""
    for name in names:
        missing = registry.runtimes.get(name).missing()
        if missing:
            raise missing


def _output_folder(model: Any, output: str | Path | None) -> tuple[Path, bool]:
    """Return the folder to write, made and marked as ours, and whether it was made just now.

    Raises:
        OutputError: If it holds something else, or can't be written.
    """
    if output is not None:
        folder = Path(output)
    elif isinstance(model, str | Path):
        detect(Path(model))  # a typo in the model's name must not leave a folder behind
        folder = Path(f"{Path(model).stem}-strop")
    else:
        folder = Path(f"{getattr(model, 'name', 'model')}-strop")
    if folder.exists() and not folder.is_dir():
        raise OutputError(
            message(
                f"'{folder}' is a file; the results need a folder.",
                next_step="--output NAME",
            )
        )
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise OutputError(
            message(
                f"the folder '{folder}' holds something else, which would be mixed with the results.",
                "Name another one, or an empty one.",
                next_step=f"--output {folder}-2",
            )
        )
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MARK).write_text(json.dumps({"strop": 1}))
    except OSError as error:
        raise OutputError(f"the folder '{folder}' can't be written: {error.strerror}.") from None
    return folder, is_new


def apply(
    recipe: Recipe | str | Path,
    model: Any,
    samples: Any = None,
    *,
    output: str | Path | None = None,
    request: Request | None = None,
    listen: Listener = _ignore,
) -> Path:
    """Carry out one recipe, without a search, and return the folder of what it made.

    Args:
        recipe: The recipe, or the path of its TOML file.
        model: As for `optimize`.
        samples: As for `optimize`; for passes that need them.
        output: The folder to write; ``<model>-<recipe's last step>`` where None.
        request: Everything else; see `Request`.
        listen: Told what happens.

    Raises:
        RecipeError: Every mistake in the recipe at once.
        TrialError: If a step fails.
        GoalError: If a pass had nothing to do.
    """
    from strop.report.artifact import write_model

    asked = request or Request()
    if not isinstance(recipe, Recipe):
        path = Path(recipe)
        if not path.exists():
            raise OutputError(f"there is no recipe '{path}'.")
        recipe = Recipe.from_toml(path.read_text(), where=path.name)
    target = Path(output) if output else Path(f"{Path(str(model)).stem}-{recipe.runtime}")
    if target.exists() and any(target.iterdir()):
        raise OutputError(
            message(f"the folder '{target}' is not empty.", next_step="--output NAME")
        )
    with (
        tempfile.TemporaryDirectory(prefix="strop-") as scratch,
        LocalExecutor((str(Path.cwd()),)) as executor,
    ):
        store = Store(Path(scratch) / "study" / "store")
        source, splits, bench, name = _prepare(model, samples, asked, store, executor, listen)
        runner = Runner(source, store, executor, bench, splits.digest(), asked.step_seconds)
        runner.check(recipe)
        made = runner.prepare(recipe.steps, runtime=recipe.runtime, settings=recipe.settings)
        if isinstance(made, Declined):
            raise GoalError(f"'{made.step.name}' had nothing to do: {made.reason}.")
        fidelity = executor.call(
            recipe.runtime, "strop.engine.tasks:confirm", made, recipe.runtime, recipe.settings, bench,
            timeout_seconds=asked.step_seconds,
        )  # fmt: skip
        write_model(target, made, recipe, source, name, fidelity, executor, asked.command)
    return target


def load(folder: str | Path) -> Predictor:
    """Return the artifact in `folder` opened in its runtime, under the original's names.

    Args:
        folder: What `optimize` or `apply` wrote (``model-strop/best``).

    Raises:
        ModelError: If it is no artifact, or its files no longer match its certificate.
        MissingDependencyError: If its engine is not installed.
    """
    return open_artifact(Path(folder))


@dataclass(frozen=True)
class Verdict:
    """What `verify` found.

    Attributes:
        holds: Whether the candidate is within its limits.
        fidelity: How well it answers; None where only a certificate was checked.
        checks: What of an artifact was checked again.
    """

    holds: bool
    fidelity: Fidelity | None
    checks: tuple[Check, ...] = ()


def verify(
    original: Any,
    candidate: Any = None,
    samples: Any = None,
    *,
    max_drop: float | None = None,
    tolerance: float | None = None,
    metric: str | None = None,
    request: Request | None = None,
) -> Verdict:
    """Hold a candidate's answers to the original's; or, with one artifact alone, the artifact to its certificate.

    Args:
        original: A model as for `optimize`; or the folder of an artifact.
        candidate: Another model, or the folder of an artifact; None to check the artifact `original`.
        samples: As for `optimize`; inputs are made up where None.
        max_drop: The most that quality may drop; 0.01 where neither limit is given.
        tolerance: The largest absolute difference of any output.
        metric: As for `optimize`.
        request: Everything else; see `Request`.

    Raises:
        InputError: If a model or the samples can't be used.
    """
    asked = request or Request()
    with (
        tempfile.TemporaryDirectory(prefix="strop-") as scratch,
        LocalExecutor((str(Path.cwd()),)) as executor,
    ):
        if candidate is None:
            checks = _check_artifact(Path(str(original)), executor)
            return Verdict(all(check.holds is not False for check in checks), None, tuple(checks))
        first = _opened(original, asked, Path(scratch) / "original", executor)
        second = _opened(candidate, asked, Path(scratch) / "candidate", executor)
        _read_samples(samples, first.model, asked, Path(scratch), executor)
        place = next((Path(scratch) / "samples").iterdir())
        fidelity = executor.call(
            "compare", "strop.engine.verification:compare_answers",
            first, second, str(place), metric, asked.goal.confidence or 0.95, asked.seed,
            timeout_seconds=asked.step_seconds,
        )  # fmt: skip
    return Verdict(_within(fidelity, max_drop, tolerance), fidelity)


def _within(fidelity: Fidelity, max_drop: float | None, tolerance: float | None) -> bool:
    if tolerance is None and max_drop is None:
        max_drop = 0.01
    close = tolerance is None or fidelity.max_abs <= tolerance
    return fidelity.finite and close and (max_drop is None or fidelity.drop.value <= max_drop)


def _opened(model: Any, asked: Request, workspace: Path, executor: LocalExecutor) -> Opened:
    """Return a model as its owner runs it; an artifact as its certificate says."""
    if isinstance(model, str | Path) and (Path(model) / CERTIFICATE).exists():
        certificate = read_certificate(Path(model))
        recipe = Recipe.from_json(certificate["recipe"])
        return Opened(model_of(Path(model), certificate), recipe.runtime, recipe.settings)
    source, _ = _read_source(model, asked, workspace, executor)
    return Opened(source, baseline_recipe(source.form).runtime, {})


def _check_artifact(folder: Path, executor: LocalExecutor) -> list[Check]:
    certificate = read_certificate(folder)
    model = model_of(folder, certificate)
    recipe = Recipe.from_json(certificate["recipe"])
    checks = [
        Check("digest of the model", True, model.digest[:16]),
        Check("signature", True, str(model.signature)),
    ]
    checks += executor.call(
        "artifact", "strop.engine.verification:check_reference",
        Opened(model, recipe.runtime, recipe.settings), str(folder), model.binding.batch or 1,
        timeout_seconds=300,
    )  # fmt: skip
    recorded = certificate.get("measurements", {}).get(f"latency_p50@{model.binding.batch or 1}")
    if recorded:
        processor = certificate["machine"]["processor"]
        checks.append(Check(f"recorded on {processor}", None, f"{recorded['value']:.4g} ms"))
    return checks


def bench(
    models: Sequence[Any],
    samples: Any = None,
    *,
    batch: int = 1,
    rounds: int = 20,
    seconds: float = 0.1,
    request: Request | None = None,
) -> list[Pair]:
    """Time models side by side, round by round in turn, against the first.

    Args:
        models: Models as for `optimize`, or folders of artifacts; those that fit the first one's inputs.
        samples: Inputs to time with; made up where None.
        batch: Batch size.
        rounds: How many.
        seconds: Of each model in each round.
        request: Everything else; see `Request`.

    Raises:
        InputError: If a model or the samples can't be used.
        TrialError: If a model fails.
    """
    asked = request or Request()
    with (
        tempfile.TemporaryDirectory(prefix="strop-") as scratch,
        LocalExecutor((str(Path.cwd()),)) as executor,
    ):
        opened = [
            _opened(model, asked, Path(scratch) / f"model{place}", executor)
            for place, model in enumerate(models)
        ]
        _read_samples(samples, opened[0].model, asked, Path(scratch), executor)
        place = next((Path(scratch) / "samples").iterdir())
        names = [str(model) for model in models]
        if len(set(names)) < len(names):
            names = [f"{name} ({position})" for position, name in enumerate(names, 1)]
        subjects = {
            name: (one.model, Recipe((), one.runtime, one.settings))
            for name, one in zip(names, opened, strict=True)
        }
        stand = Bench(place, place, asked.goal, asked.seed)
        return compare(executor, subjects, names[0], stand, batch, rounds=rounds, seconds=seconds)


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        model: The model as it was read.
        description: Operations, parameters, multiply-accumulates.
        engines: For each runtime, the conversions that lead to it; None where none does, with the reason beside.
    """

    model: Model
    description: Description
    engines: dict[str, str]


def inspect(model: Any, *, request: Request | None = None) -> Inspection:
    """Return what a model is and how each engine can be reached from it.

    Args:
        model: As for `optimize`.
        request: What is said about the source; see `Request`.

    Raises:
        ModelError: If it can't be read.
    """
    asked = request or Request()
    with (
        tempfile.TemporaryDirectory(prefix="strop-") as scratch,
        LocalExecutor((str(Path.cwd()),)) as executor,
    ):
        source, _ = _read_source(model, asked, Path(scratch), executor)
        lane = "convert" if source.form in _TENSORFLOW else "light"
        description = executor.call(
            lane, "strop.graph.describing:describe", source, timeout_seconds=asked.step_seconds
        )
    space = Space(source.form, Effort.QUICK, {"cores": 1, "batch": asked.goal.batch})
    return Inspection(source, description, space.reach())


__all__ = [
    "Artifact",
    "Inspection",
    "Request",
    "Result",
    "Verdict",
    "apply",
    "bench",
    "inspect",
    "load",
    "optimize",
    "verify",
]
