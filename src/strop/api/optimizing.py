"""`optimize`: the search, from what is asked to the folder of results."""

from __future__ import annotations

import datetime as dt
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from strop.api.opening import load
from strop.core import registry
from strop.core.contracts import Effort
from strop.core.errors import (
    GoalError,
    InputError,
    ParameterError,
)
from strop.core.evaluation import Goal, Objective
from strop.core.predictor import Predictor
from strop.engine.context import baseline_recipe
from strop.engine.executors.local import LocalExecutor
from strop.engine.fidelity import reasons
from strop.engine.ledger import Ledger, Trial
from strop.engine.machine import this_machine, versions
from strop.engine.outcome import Circumstances, Outcome
from strop.engine.running import Runner
from strop.engine.store import Store
from strop.report.artifact import (
    write_artifact,
)
from strop.report.folder import write_reports
from strop.search.events import Listener, StageStarted, StudyFinished, ignore
from strop.search.folder import output_folder
from strop.search.pace import PACES
from strop.search.preparing import (
    prepare,
    without_targets,
)
from strop.search.request import Request, with_command
from strop.search.space import Space
from strop.search.study import Study
from strop.search.trials import Trials


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
    listen: Listener = ignore,
    request: Request | None = None,
) -> Result:
    """Return the fastest (or smallest) model that still gives the right answers, with the proof.

    Args:
        model: A path (``.keras``, ``.h5``, a SavedModel folder, ``.pb``, ``.tflite``, ``.onnx``, ``.xml``) or a
            `keras.Model`.
        samples: A path, ``package.module:function``, or Python objects: see `strop.data.reading.read`.
            Without any, inputs are made up, and agreement with the original is judged.
        max_drop: The most that quality may drop: absolute for metrics in [0, 1], relative for errors.
        minimize: ``latency``, ``throughput``, ``size``, ``zipped-size``, ``memory`` or ``cold-start``.
        batch_sizes: Batch sizes to measure; the objective is taken at the first.
        metric: The quality metric's name or ``package.module:function``; picked where None. A function is given
            an output and its targets and returns a number: more is better and a drop absolute, unless it has the
            attributes ``higher_is_better = False`` and ``is_bounded = False`` (a drop is relative then).
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
    asked = with_command(request or mine, optimize, given)
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
        {
            "cores": machine.cores,
            "batch": asked.goal.batch if one_size else 0,
            "first_batch": asked.goal.batch,
            "safe_weight_bits": 8 if machine.has_integer_dot_products else 7,
        },
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
