"""A study: propose recipes, carry them out, keep what pays, and prove it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from strop.core import digest, registry
from strop.core.contracts import Effort
from strop.core.errors import (
    Cancelled,
    MetricError,
    NothingWorkedError,
    StropError,
    TrialError,
)
from strop.core.evaluation import (
    Evaluation,
    Fidelity,
    Goal,
    Measurement,
)
from strop.core.model import Form, Model
from strop.core.recipe import Recipe, Step
from strop.engine.context import Bench
from strop.engine.executors.local import LocalExecutor
from strop.engine.ledger import Ledger, Trial
from strop.engine.machine import this_machine, versions
from strop.engine.outcome import Outcome
from strop.engine.pairs import Pair, compare
from strop.engine.running import Declined, Runner, gist
from strop.search.events import (
    Listener,
    Note,
    StageStarted,
    TrialFinished,
    TrialStarted,
)
from strop.search.explain import explain
from strop.search.space import Space

_TASKS = "strop.engine.tasks"
_LEAST_ROUNDS = 12  # fewer tell resembling rounds from independent ones too badly


@dataclass(frozen=True)
class Pace:
    """How much work an effort spends.

    Attributes:
        timing_seconds: Timing of one trial.
        judged: Most samples to judge a trial on before the final.
        judging_seconds: About the longest to judge one.
        tuned: How many models have all their runtime's settings tried.
        finalists: How many are measured in pairs.
        rounds: Of the pairs.
        round_seconds: Of each subject in a round.
        hopeless: How many times behind the best a form may be in float and still get its techniques tried.
    """

    timing_seconds: float
    judged: int
    judging_seconds: float
    tuned: int
    finalists: int
    rounds: int
    round_seconds: float
    hopeless: float


PACES = {
    Effort.QUICK: Pace(0.2, 500, 3.0, 2, 2, 14, 0.06, 6.0),
    Effort.STANDARD: Pace(0.4, 1000, 8.0, 4, 4, 24, 0.1, 12.0),
    Effort.THOROUGH: Pace(1.0, 5000, 30.0, 8, 6, 40, 0.2, 1e9),
}


class _OutOfTimeError(Exception):
    """The budget is used up."""


@dataclass
class Study:
    """One search, resumable: what the ledger has is not done again.

    Attributes:
        runner: Carries the passes out.
        ledger: Where trials are kept.
        space: What may be tried.
        effort: How hard to try.
        baseline: How the source runs today: runtime and settings.
        listen: Told what happens.
        budget_seconds: After which the search ends with the best so far; None for no limit.
    """

    runner: Runner
    ledger: Ledger
    space: Space
    effort: Effort
    baseline: Recipe
    listen: Listener
    budget_seconds: float | None = None
    _trials: dict[str, Trial] = field(default_factory=dict)
    _explanations: dict[str, str] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)
    _worked: dict[Form, tuple[Step, ...]] = field(default_factory=dict)

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
                "source": self.runner.source.digest,
                "data": self.runner.data_digest,
                "goal": self.goal.to_json(),
                "seed": self.bench.seed,
                "effort": str(self.effort),
                "machine": this_machine().digest(),
                "versions": versions(),
            }
        )[:32]

    def run(self) -> Outcome:
        """Search, then let the finalists race and confirm the winner.

        Raises:
            NothingWorkedError: If not even the baseline runs.
        """
        interrupted, by_user = False, False
        first = self._try(self.baseline, is_baseline=True)
        if first.state != "done":
            raise NothingWorkedError(f"the model itself does not run: {first.reason}")
        try:
            self._search()
        except (_OutOfTimeError, Cancelled, KeyboardInterrupt) as stop:
            interrupted, by_user = True, not isinstance(stop, _OutOfTimeError)
            why = "the budget is used up" if isinstance(stop, _OutOfTimeError) else "interrupted"
            self.listen(Note(f"{why}; going on with the best so far"))
        return self._conclude(first, interrupted, by_user)

    def _search(self) -> None:
        self._compare_only()
        routes = self.space.float_routes()
        self._stage("conversions", routes)
        if self.effort.reaches(Effort.STANDARD):
            self._stage("other conversions", self.space.alternatives())
        kept = {
            form: steps for form, steps in self._worked.items() if not self._hopeless(form, steps)
        }
        self._stage("techniques", self.space.techniques(kept))
        self._stage("repair", list(self._repairs()))
        self._stage("settings", list(self._untried_settings()))

    def _compare_only(self) -> None:
        """Measure what is shown beside the others and never chosen (``keras predict``)."""
        for kind in registry.runtimes:
            if (
                kind.is_for_comparison
                and self.runner.source.form in kind.takes
                and not kind.missing()
            ):
                self._try(Recipe((), kind.name), is_baseline=True)

    def _stage(self, name: str, recipes: Sequence[Recipe]) -> None:
        fresh = [recipe for recipe in recipes if str(recipe) not in self._trials]
        self.listen(StageStarted(name, len(fresh)))
        for recipe in fresh:
            if self._is_over():
                raise _OutOfTimeError
            trial = self._try(recipe)
            if trial.state == "failed" and not trial.recipe.settings.get("jit"):
                self._fall_back(recipe)

    def _fall_back(self, recipe: Recipe) -> None:
        """Try a refused route with its conversions' other settings until one works."""
        for steps in self.space.fallbacks(recipe.steps):
            again = replace(recipe, steps=steps)
            if str(again) in self._trials:
                return
            if self._try(again).state == "done":
                return

    def _is_over(self) -> bool:
        if self.budget_seconds is None:
            return False
        # A quarter is kept back for the final, without which nothing is proved.
        return time.monotonic() - self._started > 0.75 * self.budget_seconds

    def _seconds_left(self) -> float | None:
        if self.budget_seconds is None:
            return None
        return max(self.budget_seconds - (time.monotonic() - self._started), 0.0)

    def _try(self, recipe: Recipe, *, is_baseline: bool = False) -> Trial:
        """Return the trial of `recipe`: from the ledger where it was made before, else made now."""
        key = self.key(recipe)
        trial = self.ledger.get(key)
        if trial is None:
            self.listen(TrialStarted(str(recipe), len(self._trials), self._seconds_left()))
            started = time.monotonic()
            made = self._carry_out(key, recipe, is_baseline=is_baseline)
            trial = self.ledger.record(replace(made, seconds=time.monotonic() - started))
        self._trials[str(recipe)] = trial
        self._note_form(trial)
        self._tell(trial)
        return trial

    def _carry_out(self, key: str, recipe: Recipe, *, is_baseline: bool) -> Trial:
        try:
            self.runner.check(recipe)
            model = self.runner.prepare(
                recipe.steps,
                runtime=recipe.runtime,
                settings=recipe.settings,
                progress=self._pulse,
            )
            if isinstance(model, Declined):
                return Trial(key, recipe, "declined", f"{model.step.name}: {model.reason}")
            evaluation = self._evaluate(model, recipe, judged=0 if is_baseline else None)
        except MetricError:
            raise  # it will fail for every candidate alike
        except (TrialError, StropError) as error:
            if not isinstance(error, TrialError) and error.exit_code != 3:
                raise
            return Trial(key, recipe, "failed", gist(error))
        reason = ""
        if evaluation.fidelity and not is_baseline:
            reason = self.goal.shortfall(evaluation.fidelity) or ""
        return Trial(key, recipe, "done", reason, evaluation, dict(model.facts))

    def _pulse(self, fraction: float, note: str) -> None:
        """Let a pass that takes long be ended by the budget."""

    def _evaluate(
        self,
        model: Model,
        recipe: Recipe,
        *,
        judged: int | None,
        seconds: float | None = None,
    ) -> Evaluation:
        found: Evaluation = self.executor.call(
            self.lane(recipe),
            f"{_TASKS}:evaluate",
            model,
            recipe.runtime,
            recipe.settings,
            self.bench,
            judged=self.pace.judged if judged is None else judged,
            judging_seconds=self.pace.judging_seconds,
            seconds=seconds or self.pace.timing_seconds,
            batch_sizes=self.goal.batch_sizes,
            timeout_seconds=self.runner.step_seconds,
        )
        if self.goal.minimize in ("memory", "cold-start"):
            costs = self.costs(model, recipe, repeats=1)
            found = replace(found, measurements={**found.measurements, **costs})
        return found

    def costs(self, model: Model, recipe: Recipe, *, repeats: int = 3) -> dict[str, Measurement]:
        """Return cold start and memory, each in processes of their own; one where TensorFlow takes its ten seconds."""
        if registry.runtimes.get(recipe.runtime).loads_tensorflow:
            repeats = 1
        found: dict[str, Measurement] = self.executor.call(
            "light",
            "strop.engine.measure:process_costs",
            model, recipe.runtime, recipe.settings,
            batch=self.goal.batch, repeats=repeats, timeout_seconds=self.runner.step_seconds,
        )  # fmt: skip
        return found

    def lane(self, recipe: Recipe) -> str:
        """Return the lane a recipe is measured in: one an engine, since engines' threads fight within a process."""
        kind = registry.runtimes.get(recipe.runtime)
        if kind.loads_tensorflow:
            # TensorFlow's threads and auto-clustering are settings of the whole process.
            return f"tensorflow threads={recipe.settings.get('threads', 0)} auto={recipe.settings.get('jit') == 'auto'}"
        return recipe.runtime

    def _note_form(self, trial: Trial) -> None:
        """Remember the first chain of conversions that worked for a form."""
        steps = trial.recipe.steps
        if trial.state != "done" or any(not s.name.startswith("convert.") for s in steps):
            return
        form = self.runner.source.form
        for step in steps:
            form = registry.passes.get(step.name).gives or form
        self._worked.setdefault(form, steps)
        # A technique may start from a form on the way that no engine of its own was tried in.
        passed = self.runner.source.form
        for count, step in enumerate(steps, 1):
            passed = registry.passes.get(step.name).gives or passed
            self._worked.setdefault(passed, steps[:count])

    def _hopeless(self, form: Form, steps: tuple[Step, ...]) -> bool:
        """Say whether techniques on a form are not worth trying, and keep the reason."""
        best = self._best_of(self._trials.values())
        here = self._best_of(t for t in self._trials.values() if t.recipe.steps == steps)
        if best is None or here is None or self.goal.minimize not in ("latency", "throughput"):
            return False
        ratio = self._value(here) / self._value(best)
        if ratio <= self.pace.hopeless:
            return False
        for recipe in self.space.techniques({form: steps}):
            reason = f"in float this way takes {ratio:.1f} times the best; no technique makes up for that"
            key = self.key(recipe)
            trial = self.ledger.get(key) or self.ledger.record(
                Trial(key, recipe, "dropped", reason)
            )
            self._trials[str(recipe)] = trial
            self._tell(trial)
        return True

    def _repairs(self) -> Iterable[Recipe]:
        """Yield what missed the limit and would pay if it did not, with accuracy repair on."""
        best = self._best_of(self._trials.values())
        missed = [
            t for t in self._trials.values() if t.state == "done" and t.evaluation and t.reason
        ]
        for trial in sorted(missed, key=self._value)[: self.pace.finalists]:
            repaired = self.space.repaired(trial.recipe)
            # Layers left in float cost time; what is no faster than the best without repair won't be with it.
            if repaired and (best is None or self._value(trial) < self._value(best)):
                yield repaired

    def _untried_settings(self) -> Iterable[Recipe]:
        """Yield the best models under their runtimes' other settings."""
        seen: list[tuple[tuple[Step, ...], str]] = []
        for trial in self._ranked():
            pair = trial.recipe.steps, trial.recipe.runtime
            if pair in seen:
                continue
            seen.append(pair)
            if len(seen) > self.pace.tuned:
                return
            for settings in self.space.settings(registry.runtimes.get(trial.recipe.runtime)):
                yield trial.recipe.on(trial.recipe.runtime, settings)

    def meets(self, trial: Trial) -> bool:
        """Say whether a trial keeps the limits (the baseline does by definition)."""
        if trial.state != "done" or trial.evaluation is None:
            return False
        fidelity = trial.evaluation.fidelity
        return fidelity is not None and self.goal.shortfall(fidelity) is None

    def _value(self, trial: Trial) -> float:
        """Return what is minimized: the smaller the better, throughput turned over."""
        measured = trial.evaluation.objective(self.goal) if trial.evaluation else None
        if measured is None:
            return float("inf")
        return 1 / measured.value if self.goal.minimize == "throughput" else measured.value

    def _ranked(self) -> list[Trial]:
        """Return the trials that keep the limits, best first."""
        fit = [trial for trial in self._trials.values() if self.meets(trial)]
        return sorted(fit, key=self._value)

    def _best_of(self, trials: Iterable[Trial]) -> Trial | None:
        fit = [trial for trial in trials if self.meets(trial)]
        return min(fit, key=self._value, default=None)

    def _tell(self, trial: Trial) -> None:
        measured = trial.evaluation.objective(self.goal) if trial.evaluation else None
        baseline = self._trials.get(str(self.baseline))
        gain = None
        if measured and baseline and baseline.evaluation:
            gain = self._value(baseline) / self._value(trial)
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

    def _conclude(self, baseline: Trial, interrupted: bool, by_user: bool) -> Outcome:
        """Race the finalists against the baseline and each other, and confirm the winner."""
        pairs: list[Pair] = []
        best, model, confirmed = None, None, None
        finalists = self._finalists()
        self.listen(StageStarted("final", len(finalists)))
        models = self._models_of(finalists)
        if models:
            pairs = self._race(baseline, models, hurried=by_user)
        for pair in self._in_order(pairs, models):
            trial = next(t for t in models if str(t.recipe) == pair.name)
            confirmed = self._confirmed(trial, models[trial])
            shortfall = self.goal.shortfall(confirmed)
            if shortfall is None:
                best, model = trial, models[trial]
                break
            self.listen(Note(f"{trial.recipe}: on samples not looked at before, it {shortfall}"))
        if not by_user:  # who interrupts does not want to wait for processes to start
            baseline = self._with_costs(baseline, self.runner.source)
            best = self._with_costs(best, model) if best and model else best
        if best is not None and not self._is_better(best, pairs):
            self.listen(
                Note(f"{best.recipe} was not proved better than the original, which is kept")
            )
            best, model = baseline, self.runner.source
            confirmed = self._confirmed(baseline, model)
        self._explain_all()
        return Outcome(
            baseline,
            tuple(sorted(self._trials.values(), key=lambda t: t.number)),
            best,
            None if best else self._nearest(),
            model,
            confirmed,
            tuple(pairs),
            self._explanations,
            interrupted,
            by_user,
            time.monotonic() - self._started,
        )

    def _finalists(self) -> list[Trial]:
        """Return the best trials, at most two of one model, within reach of the best."""
        chosen: list[Trial] = []
        ranked = self._ranked()
        for trial in ranked:
            same = [t for t in chosen if t.recipe.steps == trial.recipe.steps]
            close = self._value(trial) <= 1.3 * self._value(ranked[0])
            if len(same) < 2 and close and len(chosen) < self.pace.finalists:
                chosen.append(trial)
        return chosen

    def _models_of(self, finalists: Sequence[Trial]) -> dict[Trial, Model]:
        models: dict[Trial, Model] = {}
        for trial in finalists:
            prepared = self.runner.prepare(
                trial.recipe.steps,
                runtime=trial.recipe.runtime,
                settings=trial.recipe.settings,
            )
            if isinstance(prepared, Model):
                models[trial] = prepared
        return models

    def _race(self, baseline: Trial, models: dict[Trial, Model], *, hurried: bool) -> list[Pair]:
        kept = self.ledger.recall(self._race_key(baseline, models))
        if kept:
            return [Pair.from_json(pair) for pair in kept]
        subjects = {str(baseline.recipe): (self.runner.source, baseline.recipe)}
        subjects |= {str(trial.recipe): (model, trial.recipe) for trial, model in models.items()}
        try:
            pairs = compare(
                self.executor, subjects, str(baseline.recipe), self.bench, self.goal.batch,
                rounds=_LEAST_ROUNDS if hurried else self.pace.rounds,
                seconds=self.pace.round_seconds,
            )  # fmt: skip
        except TrialError as error:
            self.listen(Note(f"the final could not be measured in pairs: {gist(error)}"))
            return []
        if not hurried:
            self.ledger.remember(
                self._race_key(baseline, models), [pair.to_json() for pair in pairs]
            )
        return pairs

    def _race_key(self, baseline: Trial, models: dict[Trial, Model]) -> str:
        return "race " + digest.of_value([baseline.key, sorted(trial.key for trial in models)])

    def _in_order(self, pairs: Sequence[Pair], models: dict[Trial, Model]) -> list[Pair]:
        """Return the finalists best first: by the paired ratio for speed, else by the objective itself."""
        if self.goal.minimize in ("latency", "throughput") and pairs:
            return sorted(pairs, key=lambda pair: pair.ratio.value)
        by_name = {pair.name: pair for pair in pairs}
        ordered = sorted(models, key=self._value)
        return [
            by_name.get(str(t.recipe), Pair(str(t.recipe), Measurement.exact(1.0, "ratio")))
            for t in ordered
        ]

    def _confirmed(self, trial: Trial, model: Model) -> Fidelity:
        found: Fidelity = self.executor.call(
            self.lane(trial.recipe), f"{_TASKS}:confirm",
            model, trial.recipe.runtime, trial.recipe.settings, self.bench,
            timeout_seconds=self.runner.step_seconds,
        )  # fmt: skip
        return found

    def _with_costs(self, trial: Trial, model: Model) -> Trial:
        """Return the trial with cold start and memory beside its other figures."""
        if trial.evaluation is None or "cold_start" in trial.evaluation.measurements:
            return trial
        try:
            costs = self.costs(model, trial.recipe)
        except TrialError as error:
            self.listen(Note(f"cold start and memory could not be measured: {gist(error)}"))
            return trial
        measurements = {**trial.evaluation.measurements, **costs}
        complete = replace(trial, evaluation=replace(trial.evaluation, measurements=measurements))
        self._trials[str(trial.recipe)] = self.ledger.record(complete)
        return self._trials[str(trial.recipe)]

    def _is_better(self, best: Trial, pairs: Sequence[Pair]) -> bool:
        if self.goal.minimize not in ("latency", "throughput"):
            return self._value(best) < self._value(self._trials[str(self.baseline)])
        return any(pair.name == str(best.recipe) and pair.ratio.high < 1 for pair in pairs)

    def _nearest(self) -> Trial | None:
        """Return the trial that misses the limits by least."""
        judged = [
            trial
            for trial in self._trials.values()
            if trial.evaluation and trial.evaluation.fidelity and trial.evaluation.fidelity.finite
        ]

        def drop(trial: Trial) -> float:
            assert trial.evaluation  # noqa: S101 - chosen above for having both
            assert trial.evaluation.fidelity  # noqa: S101
            return trial.evaluation.fidelity.drop.value

        return min(judged, key=drop, default=None)

    def _explain_all(self) -> None:
        for trial in self._trials.values():
            if trial.evaluation is None:
                continue
            parent = self._parent(trial)
            found = explain(
                trial.recipe,
                trial.evaluation,
                parent.evaluation if parent else None,
                self.goal,
                this_machine(),
                dict(trial.facts),
            )
            if found:
                self._explanations[trial.key] = found

    def _parent(self, trial: Trial) -> Trial | None:
        """Return what a trial is to be compared with: without its technique, or without its setting."""
        recipe = trial.recipe
        if recipe.steps and recipe.steps[-1].name.startswith("quantize."):
            return self._trials.get(str(replace(recipe, steps=recipe.steps[:-1])))
        for name in ("jit", "threads"):
            if name in recipe.settings:
                rest = {key: value for key, value in recipe.settings.items() if key != name}
                for other in ({**rest}, {**rest, name: 1}):
                    found = self._trials.get(str(recipe.on(recipe.runtime, other)))
                    if found and found is not trial:
                        return found
        return None
