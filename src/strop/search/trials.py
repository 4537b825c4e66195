"""Carrying recipes out as trials: evaluated, kept, compared, each once."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from strop.core import digest, registry
from strop.core.contracts import Effort
from strop.core.errors import (
    Cancelled,
    MetricError,
    OutputError,
    StepTimeoutError,
    StropError,
    TrialError,
)
from strop.core.evaluation import (
    SIZES,
    Evaluation,
    Fidelity,
    Goal,
    Measurement,
)
from strop.core.model import Model
from strop.core.recipe import Recipe
from strop.engine.context import Bench
from strop.engine.executors.local import LocalExecutor
from strop.engine.lanes import LIGHT, of_running
from strop.engine.ledger import Ledger, Trial
from strop.engine.machine import this_machine, versions
from strop.engine.running import Declined, Runner, gist
from strop.engine.worker import QUIET_SECONDS, Progress
from strop.search.events import (
    Listener,
    Note,
    StepProgressed,
    TrialFinished,
    TrialStarted,
)
from strop.search.pace import PACES, Pace

_TASKS = "strop.engine.tasks"


@dataclass
class Trials:
    """The trials of one study, resumable: what the ledger has is not carried out again.

    Attributes:
        runner: Carries the passes out.
        ledger: Where trials are kept.
        effort: How hard to try.
        baseline: How the source runs today: runtime and settings.
        listen: Told what happens.
        budget_seconds: After which what takes long is ended; None for no limit.
        started: When the user began to wait (`time.monotonic`).
        known: This run's trials by their recipe's line.
    """

    runner: Runner
    ledger: Ledger
    effort: Effort
    baseline: Recipe
    listen: Listener
    budget_seconds: float | None = None
    started: float = field(default_factory=time.monotonic)
    known: dict[str, Trial] = field(default_factory=dict)

    @property
    def goal(self) -> Goal:
        """What the study is after."""
        return self.bench.goal

    @property
    def bench(self) -> Bench:
        """What candidates are held to."""
        return self.runner.bench

    @property
    def executor(self) -> LocalExecutor:
        """Where the work is done."""
        return self.runner.executor

    @property
    def pace(self) -> Pace:
        """How much work is spent."""
        return PACES[self.effort]

    def key(self, recipe: Recipe) -> str:
        """Return what a trial is kept under: the recipe, and all that its figures depend on."""
        return digest.of_value(
            {
                "recipe": recipe.to_json(),
                "source": self.runner.source.identity(),
                "data": self.runner.data_digest,
                "goal": self.goal.to_json(),
                "seed": self.bench.seed,
                "effort": str(self.effort),
                "machine": this_machine().digest(),
                "versions": versions(),
            }
        )[:32]

    def has(self, recipe: Recipe) -> bool:
        """Say whether the trial of `recipe` was made before."""
        return self.ledger.get(self.key(recipe)) is not None

    def take(self, recipe: Recipe, *, is_baseline: bool = False) -> Trial:
        """Return the trial of `recipe`: from the ledger where it was made before, else made now.

        Raises:
            Cancelled: If the budget is used up meanwhile.
        """
        key = self.key(recipe)
        trial = self.ledger.get(key)
        if trial is None or (self._may_go_otherwise(trial) and not self.is_over()):
            self.listen(TrialStarted(str(recipe), len(self.known), self._seconds_left()))
            started = time.monotonic()
            made = self._carry_out(key, recipe, is_baseline=is_baseline)
            trial = self.ledger.record(replace(made, seconds=time.monotonic() - started))
        self.known[str(recipe)] = trial
        self._tell(trial)
        return trial

    def _may_go_otherwise(self, trial: Trial) -> bool:
        """Say whether a trial of an earlier run is worth another try: it was dropped, or had less time."""
        given = trial.facts.get("step_seconds")
        unseen = trial.state == "dropped" and trial.evaluation is None
        return unseen or (isinstance(given, int | float) and given < self.runner.step_seconds)

    def _carry_out(self, key: str, recipe: Recipe, *, is_baseline: bool) -> Trial:
        progress = None if is_baseline else self._pulse
        try:
            self.runner.check(recipe)
            model = self.runner.prepare(
                recipe.steps,
                runtime=recipe.runtime,
                settings=recipe.settings,
                progress=progress,
            )
            if isinstance(model, Declined):
                return Trial(key, recipe, "declined", f"{model.step.name}: {model.reason}")
            evaluation = self._evaluate(
                model, recipe, judged=0 if is_baseline else None, progress=progress
            )
        except (MetricError, OutputError, Cancelled):
            raise  # it would be the same for every candidate (a metric that fails on one alone is a JudgingError)
        except StepTimeoutError as error:
            facts = {"step_seconds": self.runner.step_seconds}
            return Trial(key, recipe, "failed", gist(error), None, facts)
        except StropError as error:
            return Trial(key, recipe, "failed", gist(error))
        if evaluation.fidelity is None and not is_baseline:
            reason = "its time is so far behind the best that quality was not looked at"
            return Trial(key, recipe, "dropped", reason, evaluation, dict(model.facts))
        reason = ""
        if evaluation.fidelity and not is_baseline:
            reason = self.goal.shortfall(evaluation.fidelity) or ""
        return Trial(key, recipe, "done", reason, evaluation, dict(model.facts))

    def _pulse(self, fraction: float, note: str) -> None:
        """Tell how far a step is, and end what takes long once the budget is used up."""
        if self.is_over():
            raise Cancelled("the budget is used up")
        if note and fraction >= 0:
            self.listen(StepProgressed("", fraction, note))

    def _evaluate(
        self,
        model: Model,
        recipe: Recipe,
        *,
        judged: int | None,
        progress: Progress | None,
    ) -> Evaluation:
        found: Evaluation = self.executor.call(
            of_running(recipe.runtime, recipe.settings),
            f"{_TASKS}:evaluate",
            model,
            recipe.runtime,
            recipe.settings,
            self.bench,
            judged=self.pace.judged if judged is None else judged,
            judging_seconds=self.pace.judging_seconds,
            seconds=self.pace.timing_seconds,
            batch_sizes=self.goal.batch_sizes,
            near_ms=self._best_ms() * self.pace.near if judged is None else math.inf,
            hopeless_ms=self._best_ms() * self.pace.hopeless if judged is None else math.inf,
            timeout_seconds=self.runner.step_seconds,
            progress=progress,
            look_seconds=QUIET_SECONDS,
        )
        if self.goal.minimize in ("memory", "cold-start"):
            costs = self.costs(model, recipe, repeats=1)
            found = replace(found, measurements={**found.measurements, **costs})
        if self.goal.minimize in SIZES:
            found = replace(found, measurements={**found.measurements, **self._zipped(model)})
        if recipe == self.baseline:
            counts = self._counts(model)
            found = replace(found, measurements={**found.measurements, **counts})
        return found

    def look_again(self, trials: Sequence[Trial]) -> None:
        """Time trials once more, in a fresh process for each engine, and go on with the better figures.

        Where calls are short, how a machine wakes its second processor adds as much as a half to each of them, for as
        long as a process lives or a while longer. It takes none away, so the better figure is the truer one.

        The ledger keeps the second figures beside the first, so that a search that goes on comes by the same way here.

        Raises:
            Cancelled: If the budget is used up meanwhile.
        """
        lanes = {trial.recipe.runtime: f"{trial.recipe.runtime} once more" for trial in trials}
        try:
            for trial in sorted(trials, key=lambda trial: trial.recipe.runtime):
                if not self.is_over() or self._seen_again(trial):
                    self._look_again(trial, lanes[trial.recipe.runtime])
        finally:
            for lane in lanes.values():
                self.executor.close_lane(lane)

    def _look_again(self, trial: Trial, lane: str) -> None:
        evaluation = trial.evaluation
        assert evaluation is not None  # noqa: S101 - what was not measured is not among the best
        found = self._seen_again(trial)
        if found is None:
            self.listen(TrialStarted(str(trial.recipe), len(self.known), self._seconds_left()))
            try:
                found = self._timed_alone(trial, lane)
            except TrialError as error:
                self.listen(Note(f"{trial.recipe} could not be timed once more: {gist(error)}"))
                return
            told = {name: measured.to_json() for name, measured in found.items()}
            self.ledger.remember(_once_more(trial), told)
        again = replace(evaluation, measurements={**evaluation.measurements, **found})
        if self.value_of(again) < self.value_of(evaluation):
            trial = replace(trial, evaluation=again)
            self.known[str(trial.recipe)] = trial
        self._tell(trial)

    def _seen_again(self, trial: Trial) -> dict[str, Measurement] | None:
        """Return the figures of an earlier second look; None where there was none."""
        kept = self.ledger.recall(_once_more(trial))
        return kept and {name: Measurement.from_json(told) for name, told in kept.items()}

    def _timed_alone(self, trial: Trial, lane: str) -> dict[str, Measurement]:
        recipe = trial.recipe
        model = self.runner.prepare(
            recipe.steps, runtime=recipe.runtime, settings=recipe.settings, progress=self._pulse
        )
        found: dict[str, Measurement] = self.executor.call(
            lane, f"{_TASKS}:time_alone", model, recipe.runtime, recipe.settings, self.bench,
            seconds=self.pace.timing_seconds / 2, batch_sizes=self.goal.batch_sizes,
            timeout_seconds=self.runner.step_seconds, progress=self._pulse, look_seconds=QUIET_SECONDS,
        )  # fmt: skip
        return found

    def _counts(self, model: Model) -> dict[str, Measurement]:
        """Return the original's parameters and multiply-accumulates; nothing where they can't be counted."""
        try:
            found: dict[str, Measurement] = self.executor.call(
                of_running(self.baseline.runtime, self.baseline.settings), f"{_TASKS}:count", model,
                timeout_seconds=self.runner.step_seconds,
            )  # fmt: skip
        except TrialError as error:  # a study is worth going on with without them
            self.listen(Note(f"parameters and operations were not counted: {gist(error)}"))
            return {}
        return found

    def _best_ms(self) -> float:
        """Return the best's milliseconds a call; infinite where there is no best yet, or something else is minimized."""
        best = self.best_of(self.known.values())
        if best is None or best.evaluation is None or self.goal.minimize != "latency":
            return math.inf
        measured = best.evaluation.objective(self.goal)
        return measured.value if measured else math.inf

    def costs(self, model: Model, recipe: Recipe, *, repeats: int = 3) -> dict[str, Measurement]:
        """Return cold start and memory, each in processes of their own; one where TensorFlow takes its ten seconds."""
        if registry.runtimes.get(recipe.runtime).loads_tensorflow:
            repeats = 1
        found: dict[str, Measurement] = self.executor.call(
            LIGHT,
            "strop.engine.measure:process_costs",
            model, recipe.runtime, recipe.settings,
            batch=self.goal.batch, repeats=repeats, timeout_seconds=self.runner.step_seconds,
        )  # fmt: skip
        return found

    def _zipped(self, model: Model) -> dict[str, Measurement]:
        """Return the size zipped."""
        found: dict[str, Measurement] = self.executor.call(
            LIGHT, "strop.engine.measure:zipped_size", model, timeout_seconds=self.runner.step_seconds
        )  # fmt: skip
        return found

    def drop(self, recipe: Recipe, reason: str) -> None:
        """Keep that a recipe was not tried, and why."""
        key = self.key(recipe)
        trial = self.ledger.get(key) or self.ledger.record(Trial(key, recipe, "dropped", reason))
        self.known[str(recipe)] = trial
        self._tell(trial)

    def reject(self, trial: Trial, reason: str) -> None:
        """Take a finalist out of this run.

        The trial stays in the ledger as the search found it, so that one that goes on comes by the same way to the same
        final; what the final finds is kept as facts beside it.
        """
        self.listen(Note(f"{trial.recipe}: {reason}"))
        self.known[str(trial.recipe)] = replace(trial, reason=reason)

    def reject_for_good(self, trial: Trial, reason: str, *, at: str) -> None:
        """Take a finalist out, and keep why, and where in the final, so that it gets no further there again."""
        self.ledger.remember(_out(trial, at), reason)
        self.reject(trial, reason)

    def reject_again(self, trial: Trial, *, at: str) -> bool:
        """Take a finalist out where an earlier run rejected it for good; say whether one did."""
        reason = self.ledger.recall(_out(trial, at))
        if reason:
            self.reject(trial, reason)
        return bool(reason)

    def is_over(self) -> bool:
        """Say whether the budget for trials is used up."""
        if self.budget_seconds is None:
            return False
        # A quarter is kept back for the final, without which nothing is proved.
        return time.monotonic() - self.started > 0.75 * self.budget_seconds

    def _seconds_left(self) -> float | None:
        if self.budget_seconds is None:
            return None
        return max(self.budget_seconds - (time.monotonic() - self.started), 0.0)

    def meets(self, trial: Trial) -> bool:
        """Say whether a candidate keeps the limits, as far as it was judged."""
        judged = trial.evaluation is not None and trial.evaluation.fidelity is not None
        return trial.state == "done" and judged and not trial.reason

    def value(self, trial: Trial) -> float:
        """Return what is minimized: the smaller the better, throughput turned over."""
        return self.value_of(trial.evaluation) if trial.evaluation else float("inf")

    def value_of(self, evaluation: Evaluation) -> float:
        """Return what is minimized in `evaluation`; infinite where it was not measured."""
        measured = evaluation.objective(self.goal)
        if measured is None:
            return float("inf")
        return 1 / measured.value if self.goal.minimize == "throughput" else measured.value

    def ranked(self) -> list[Trial]:
        """Return the trials that keep the limits, best first."""
        fit = [trial for trial in self.known.values() if self.meets(trial)]
        return sorted(fit, key=self.value)

    def best_of(self, trials: Iterable[Trial]) -> Trial | None:
        """Return the best of `trials` that keep the limits; None where none does."""
        fit = [trial for trial in trials if self.meets(trial)]
        return min(fit, key=self.value, default=None)

    def _tell(self, trial: Trial) -> None:
        measured = trial.evaluation.objective(self.goal) if trial.evaluation else None
        baseline = self.known.get(str(self.baseline))
        gain = None
        if measured and baseline and baseline.evaluation:
            gain = self.value(baseline) / self.value(trial)
        fidelity = trial.evaluation.fidelity if trial.evaluation else None
        self.listen(
            TrialFinished(
                trial.number,
                str(trial.recipe),
                trial.state,
                trial.reason,
                measured.value if measured else None,
                measured.unit if measured else "",
                gain,
                fidelity.drop.value if fidelity else None,
                self.meets(trial) or trial.recipe == self.baseline,
            )
        )

    def with_costs(self, trial: Trial, model: Model) -> Trial:
        """Return the trial with cold start, memory and size zipped beside its other figures."""
        if trial.evaluation is None or "cold_start" in trial.evaluation.measurements:
            return trial
        try:
            costs = {**self.costs(model, trial.recipe), **self._zipped(model)}
        except TrialError as error:
            self.listen(
                Note(f"cold start, memory and size zipped could not be measured: {gist(error)}")
            )
            return trial
        # What the ledger has may be older than a second look, and stays so.
        self.ledger.record(_with(self.ledger.get(trial.key) or trial, costs))
        self.known[str(trial.recipe)] = _with(trial, costs)
        return self.known[str(trial.recipe)]

    def confirmed_of(self, trial: Trial, model: Model) -> Fidelity:
        """Return the quality of `model` on *confirm*, which nothing was chosen by; looked at once, it is kept."""
        kept = self.ledger.recall(f"confirmed {trial.key}")
        if kept:
            return Fidelity.from_json(kept)
        found: Fidelity = self.executor.call(
            of_running(trial.recipe.runtime, trial.recipe.settings), f"{_TASKS}:confirm",
            model, trial.recipe.runtime, trial.recipe.settings, self.bench,
            timeout_seconds=self.runner.step_seconds,
        )  # fmt: skip
        if trial.recipe != self.baseline:  # a look at the original chooses nothing
            self.ledger.remember(self._looks_name, sorted({*self._looked_at, trial.key}))
        self.ledger.remember(f"confirmed {trial.key}", found.to_json())
        return found

    @property
    def looks(self) -> int:
        """How often candidates were judged on *confirm* of these samples, by earlier runs and under other limits too."""
        return len(self._looked_at)

    @property
    def _looked_at(self) -> list[str]:
        found: list[str] = self.ledger.recall(self._looks_name) or []
        return found

    @property
    def _looks_name(self) -> str:
        return f"looks {self.runner.data_digest}"


def _with(trial: Trial, more: dict[str, Measurement]) -> Trial:
    """Return a trial with more measurements."""
    evaluation = trial.evaluation or Evaluation({})
    measurements = {**evaluation.measurements, **more}
    return replace(trial, evaluation=replace(evaluation, measurements=measurements))


def _once_more(trial: Trial) -> str:
    """Return the fact that a second look's figures are kept under."""
    return f"once more {trial.key}"


def _out(trial: Trial, at: str) -> str:
    """Return the fact under which it is kept why a finalist is out."""
    return f"out {at} {trial.key}"
