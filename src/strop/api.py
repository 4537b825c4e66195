"""The public functions, each a few lines over the layers beneath."""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from strop.core import digest, registry
from strop.core.contracts import Effort, Predictor
from strop.core.errors import (
    GoalError,
    InputError,
    OutputError,
    ParameterError,
    RecipeError,
    WorkerDiedError,
    message,
)
from strop.core.evaluation import Fidelity, Goal, Objective
from strop.core.model import Model
from strop.core.recipe import Recipe
from strop.engine.context import Bench, baseline_recipe
from strop.engine.executors.local import LocalExecutor
from strop.engine.fidelity import reasons
from strop.engine.ledger import Ledger, Trial
from strop.engine.machine import this_machine, versions
from strop.engine.outcome import Circumstances, Outcome
from strop.engine.pairs import Timing, times_in_turn, timings
from strop.engine.running import Declined, Runner
from strop.engine.store import Store
from strop.engine.verification import Check, Opened
from strop.graph.describing import Description
from strop.report.artifact import (
    CERTIFICATE,
    REFERENCE,
    Made,
    model_of,
    open_artifact,
    read_certificate,
    write_artifact,
    write_model,
)
from strop.report.folder import refuse_file, write_reports
from strop.search.events import Event, Listener, StageStarted, StudyFinished
from strop.search.folder import output_folder
from strop.search.pace import PACES
from strop.search.preparing import (
    TENSORFLOW_FORMS,
    prepare,
    read_samples,
    read_source,
    unreadable,
    without_targets,
)
from strop.search.request import Request, spelled_call
from strop.search.space import Space
from strop.search.study import Study
from strop.search.trials import Trials

_ARTIFACT_SECONDS = 300.0


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
        request: All of the limits above and more as one value, in place of them.

    Raises:
        InputError: If model or samples can't be used.
        NothingWorkedError: If not even the model itself runs.
    """
    given = dict(locals())
    mine = Request(
        Goal(minimize, max_drop, confidence, None, tuple(batch_sizes), metric),
        Effort(effort),
        budget_seconds,
        seed,
    )
    if request is not None and mine != Request():
        raise ParameterError(
            "what is asked stands in `request`, and beside it too; give one or the other"
        )
    asked = _with_command(request or mine, optimize, given)
    started = time.monotonic()
    _check_runtimes(asked.runtimes)
    folder, is_new = output_folder(model, output)
    ledger = Ledger(folder / "study")
    try:
        with LocalExecutor((str(Path.cwd()),)) as executor:
            result = _optimize(model, samples, asked, folder, ledger, executor, listen, started)
    except InputError:
        begun = bool(ledger.trials())
        ledger.close()
        # Where nothing was begun that could be gone on with, nothing stays behind.
        if is_new and not begun:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        ledger.close()
    listen(_finished(result))
    return result


def _finished(result: Result) -> StudyFinished:
    from strop.report.words import gain, headline

    outcome, circumstances = result.outcome, result.circumstances
    told = str(result.folder), headline(outcome, circumstances)
    if outcome.best is None:
        return StudyFinished(*told, interrupted=outcome.interrupted)
    pair = outcome.pair_of(outcome.best)
    return StudyFinished(
        *told,
        str(outcome.best.recipe),
        gain(outcome, outcome.best, circumstances),
        (1 / pair.ratio.high, 1 / pair.ratio.low) if pair else None,
        outcome.confirmed.drop.value if outcome.confirmed else None,
        outcome.interrupted,
    )


def _with_command(
    asked: Request, function: Callable[..., object], given: Mapping[str, object]
) -> Request:
    """Return `asked` with the command that does it again, where it names none."""
    return replace(asked, command=asked.command or spelled_call(function, given))


def _optimize(
    model: Any,
    samples: Any,
    asked: Request,
    folder: Path,
    ledger: Ledger,
    executor: LocalExecutor,
    listen: Listener,
    started: float,
) -> Result:
    listen(StageStarted("reading"))
    store = Store(folder / "study" / "store")
    prepared = prepare(model, samples, asked, store, executor, listen)
    source, splits, bench, name = prepared
    bench = replace(bench, judged=PACES[asked.effort].judged)
    runner = Runner(source, store, executor, bench, splits.digest(), asked.step_seconds)
    machine = this_machine()
    one_size = len(set(asked.goal.batch_sizes)) == 1
    space = Space(
        source.form,
        asked.effort,
        {"cores": machine.cores, "batch": asked.goal.batch if one_size else 0},
        asked.runtimes,
    )
    trials = Trials(
        runner,
        ledger,
        asked.effort,
        baseline_recipe(source.form),
        listen,
        asked.budget_seconds,
        started,
    )
    outcome = Study(trials, space).run()
    questions = bench.questions(source)
    circumstances = Circumstances(
        name,
        source,
        asked.goal,
        reasons(questions) if questions else without_targets(splits),
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
    elif not outcome.interrupted:
        # What an earlier search with other limits chose must not lie beside a report that says otherwise; one that
        # was ended before it came to a winner has nothing to say of it.
        shutil.rmtree(folder / "best", ignore_errors=True)
        (folder / "best.toml").unlink(missing_ok=True)
    write_reports(folder, outcome, circumstances)
    return Result(folder, outcome, circumstances)


def _check_runtimes(names: Sequence[str]) -> None:
    """Hold the runtimes that were asked for to what there is and what is installed."""
    for name in names:
        missing = registry.runtimes.get(name).missing()
        if missing:
            raise missing


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
        GoalError: If a pass had nothing to do, or what was made misses the limits: it stays to be looked at, unless
            its outputs are not finite.
    """
    asked = _with_command(request or Request(), apply, dict(locals()))
    if not isinstance(recipe, Recipe):
        recipe = _read_recipe(Path(recipe))
    _refuse_comparison_only(recipe)
    last = recipe.steps[-1].name if recipe.steps else recipe.runtime
    target = Path(output) if output else Path(f"{Path(_name_of(model)).stem}-{last}")
    refuse_file(target)
    if target.exists() and any(target.iterdir()):
        raise OutputError(
            message(f"the folder '{target}' is not empty.", next_step="--output NAME")
        )
    with (
        tempfile.TemporaryDirectory(prefix="strop-") as scratch,
        LocalExecutor((str(Path.cwd()),)) as executor,
    ):
        store = Store(Path(scratch) / "study" / "store")
        source, splits, bench, name = prepare(model, samples, asked, store, executor, listen)
        runner = Runner(source, store, executor, bench, splits.digest(), asked.step_seconds)
        runner.check(recipe)
        made = runner.prepare(recipe.steps, runtime=recipe.runtime, settings=recipe.settings)
        if isinstance(made, Declined):
            raise GoalError(f"'{made.step.name}' had nothing to do: {made.reason}.")
        fidelity = executor.call(
            recipe.runtime, "strop.engine.tasks:confirm", made, recipe.runtime, recipe.settings, bench,
            timeout_seconds=asked.step_seconds,
        )  # fmt: skip
        shortfall = asked.goal.shortfall(fidelity)
        if not fidelity.finite:
            raise GoalError(f"the model that '{recipe}' makes {shortfall}; it is not kept.")
        more = {"goal": asked.goal.to_json()}
        write_model(
            target, Made(made, recipe, source, name, fidelity, asked.command, more), executor
        )
    if shortfall:
        raise GoalError(f"{shortfall}; what was made lies in '{target}'.")
    return target


def _name_of(model: Any) -> str:
    """Return what to call a model: its path, or the name of one in memory."""
    return str(model) if isinstance(model, str | Path) else str(getattr(model, "name", "model"))


def _read_recipe(path: Path) -> Recipe:
    """Return the recipe in a TOML file.

    Raises:
        RecipeError: If there is none, or it is no recipe.
    """
    if not path.exists():
        raise RecipeError([f"there is no recipe '{path}'."])
    if path.is_dir():
        raise RecipeError([f"'{path}' is a folder, no recipe."])
    try:
        return Recipe.from_toml(path.read_text(encoding="utf-8"), where=path.name)
    except UnicodeDecodeError:
        told = message(
            f"'{path}' is no recipe: it holds no text.",
            "The recipe, a TOML file, stands first; the model behind it.",
            next_step="strop apply recipe.toml model.keras",
        )
        raise RecipeError([told]) from None


def _refuse_comparison_only(recipe: Recipe) -> None:
    """Refuse a recipe for what is measured beside the others and never chosen."""
    if registry.runtimes.get(recipe.runtime).is_for_comparison:
        others = [kind.name for kind in registry.runtimes if not kind.is_for_comparison]
        told = message(
            f"the runtime '{recipe.runtime}' is only measured beside the others; no artifact is made for it.",
            f"An artifact runs in one of: {', '.join(others)}.",
        )
        raise RecipeError([told])


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

    Of a lone artifact the digests, the signature and the reference outputs are checked again; with samples that
    have targets its quality too, beside the figure of the original that the certificate tells.

    Args:
        original: A model as for `optimize`; or the folder of an artifact.
        candidate: Another model, or the folder of an artifact; None to check the artifact `original`.
        samples: As for `optimize`; inputs are made up where None.
        max_drop: The most that quality may drop; 0.01 where neither limit is given, and the certificate's own
            for a lone artifact.
        tolerance: The largest absolute difference of any output; of the reference outputs for a lone artifact.
        metric: As for `optimize`; the certificate's for a lone artifact.
        request: Everything else; see `Request`.

    Raises:
        InputError: If a model or the samples can't be used, or only the original could tell what is asked.
    """
    asked = request or Request()
    with (
        tempfile.TemporaryDirectory(prefix="strop-") as scratch,
        LocalExecutor((str(Path.cwd()),)) as executor,
    ):
        if candidate is None:
            if samples is None and (max_drop is not None or metric is not None):
                raise ParameterError(
                    message(
                        "an artifact alone has a drop only on samples, and none are given.",
                        "Give them, or leave the limit and the metric out.",
                        next_step=f"strop verify {original} --data val.npz",
                    )
                )
            folder = Path(str(original))
            checks = _check_artifact(folder, executor, tolerance)
            if samples is not None:
                place = read_samples(
                    samples, _opened_artifact(folder).model, asked, Path(scratch), executor
                )
                checks.append(_judge_artifact(folder, place, executor, metric, max_drop))
            return Verdict(all(check.holds is not False for check in checks), None, tuple(checks))
        first = _opened(original, asked, Path(scratch) / "original", executor)
        second = _opened(candidate, asked, Path(scratch) / "candidate", executor)
        place = read_samples(samples, first.model, asked, Path(scratch), executor)
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
        return _opened_artifact(Path(model))
    source, _ = read_source(model, asked, workspace, executor)
    return Opened(source, baseline_recipe(source.form).runtime, {})


def _opened_artifact(folder: Path) -> Opened:
    certificate = read_certificate(folder)
    recipe = Recipe.from_json(certificate["recipe"])
    return Opened(model_of(folder, certificate), recipe.runtime, recipe.settings)


def _judge_artifact(
    folder: Path, splits: Path, executor: LocalExecutor, metric: str | None, max_drop: float | None
) -> Check:
    """Hold an artifact's quality on samples to what its certificate was made for, unless another limit is given."""
    certificate = read_certificate(folder)
    goal = certificate.get("goal", {})
    recorded = certificate["fidelity"]
    found: Check = executor.call(
        "artifact", "strop.engine.verification:judge_alone",
        _opened_artifact(folder), str(splits), recorded and Fidelity.from_json(recorded),
        metric or goal.get("metric"), goal.get("max_drop", 0.01) if max_drop is None else max_drop,
        timeout_seconds=_ARTIFACT_SECONDS,
    )  # fmt: skip
    return found


def _check_artifact(folder: Path, executor: LocalExecutor, tolerance: float | None) -> list[Check]:
    certificate = read_certificate(folder)
    artifact = _opened_artifact(folder)
    model = artifact.model
    checks = [
        Check("digest of the model", True, model.digest[:16]),
        Check("signature", True, str(model.signature)),
    ]
    reference = folder / REFERENCE
    found = digest.of_path(reference) if reference.exists() else None
    same = found == certificate["reference"]["digest"]
    checks.append(Check(f"digest of {REFERENCE}", same, found[:16] if found else "it is missing"))
    if same:  # answers that are not the recorded ones prove nothing
        checks += executor.call(
            "artifact", "strop.engine.verification:check_reference",
            artifact, str(folder), model.binding.batch or 1, tolerance,
            timeout_seconds=_ARTIFACT_SECONDS,
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
) -> list[Timing]:
    """Time models side by side, round by round in turn, against the first.

    Args:
        models: Models as for `optimize`, or folders of artifacts; those that fit the first one's inputs. One alone
            is timed too.
        samples: Inputs to time with; made up where None.
        batch: Batch size.
        rounds: How many.
        seconds: Of each model in each round.
        request: Everything else; see `Request`.

    Raises:
        InputError: If there is no model, one or the samples can't be used, or `batch` and `rounds` are too few.
        TrialError: If a model fails.
    """
    if not models:
        raise ParameterError("there is no model to time")
    if rounds < 2:  # an interval has no width in one
        raise ParameterError(f"two rounds at least are needed, not {rounds}")
    if batch < 1:
        raise ParameterError(f"the batch size must be from 1 up, not {batch}")
    asked = request or Request()
    with (
        tempfile.TemporaryDirectory(prefix="strop-") as scratch,
        LocalExecutor((str(Path.cwd()),)) as executor,
    ):
        opened = [
            _opened(model, asked, Path(scratch) / f"model{place}", executor)
            for place, model in enumerate(models)
        ]
        place = read_samples(samples, opened[0].model, asked, Path(scratch), executor)
        names = [_name_of(model) for model in models]
        if len(set(names)) < len(names):
            names = [f"{name} ({position})" for position, name in enumerate(names, 1)]
        subjects = {
            name: (one.model, Recipe((), one.runtime, one.settings))
            for name, one in zip(names, opened, strict=True)
        }
        stand = Bench(place, place, asked.goal, asked.seed)
        figures = times_in_turn(executor, subjects, stand, batch, rounds=rounds, seconds=seconds)
    return timings(figures, names[0])


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
        source, _ = read_source(model, asked, Path(scratch), executor)
        lane = "convert" if source.form in TENSORFLOW_FORMS else "light"
        try:
            description = executor.call(
                lane, "strop.graph.describing:describe", source, timeout_seconds=asked.step_seconds
            )
        except WorkerDiedError as error:
            raise unreadable(source.path, error) from None
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
