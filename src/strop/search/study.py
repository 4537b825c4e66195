"""A study: propose recipes, carry them out, keep what pays, and prove it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from strop.core import registry
from strop.core.contracts import OPTUNA, Effort
from strop.core.errors import (
    Cancelled,
    NothingWorkedError,
)
from strop.core.evaluation import (
    Fidelity,
)
from strop.core.model import Form
from strop.core.recipe import Recipe, Step
from strop.engine.ledger import Trial
from strop.engine.machine import this_machine
from strop.engine.outcome import Outcome, figure
from strop.search.chains import Chains, Worth, chained
from strop.search.events import (
    Note,
    StageStarted,
)
from strop.search.explain import explain
from strop.search.final import Final
from strop.search.prospects import Prospects
from strop.search.space import Space
from strop.search.trials import Trials

# Of calls below a millisecond: how many models are timed once more, and how far behind the best they may be.
_LOOKED_AT_AGAIN, _NEAR, _SHORT_MS = 8, 1.6, 1.0
_ENDS = 2  # in how many of the best ways without training a chain of what trains is carried on
_LEAST_EXCESS = 1e-9  # of what misses another limit than the drop's


@dataclass
class Study:
    """One search: what to try next, and what became of it.

    Attributes:
        trials: Carries recipes out and keeps what was found.
        space: What may be tried.
    """

    trials: Trials
    space: Space
    _explanations: dict[str, str] = field(default_factory=dict)
    _worked: dict[Form, tuple[Step, ...]] = field(default_factory=dict)
    _cut_short: bool = False

    @property
    def _prospects(self) -> Prospects:
        return Prospects(self.trials, self.space)

    def run(self) -> Outcome:
        """Search, then let the finalists race and confirm the winner.

        Raises:
            NothingWorkedError: If not even the baseline runs.
        """
        by_user = False
        first = self.trials.take(self.trials.baseline, is_baseline=True)
        if first.state != "done":
            raise NothingWorkedError(f"the model itself does not run: {first.reason}")
        try:
            self._search()
        except KeyboardInterrupt:
            by_user = True
        if by_user or self._cut_short:
            why = "interrupted" if by_user else "the budget is used up"
            self.trials.listen(Note(f"{why}; going on with the best so far"))
        return self._conclude(first, by_user=by_user)

    def _search(self) -> None:
        self._compare_only()
        self._stage("conversions", self.space.float_routes(), later=self._prospects.may_wait)
        if self.trials.effort.reaches(Effort.STANDARD):
            others = [*self.space.alternatives(), *self.space.detours()]
            self._stage("other conversions", others)
        self._stage("techniques", self._hopeful_techniques())
        self._stage("repair", list(self._repairs()))
        self._train()
        self._look_again()
        self._stage("settings", list(self._untried_settings()))
        self._stage("micro-batches", list(self._micro_batches()))

    def _compare_only(self) -> None:
        """Measure what is shown beside the others and never chosen (``keras predict``)."""
        for kind in registry.runtimes:
            if (
                kind.is_for_comparison
                and self.trials.runner.source.form in kind.takes
                and not kind.missing()
            ):
                recipe = Recipe((), kind.name)
                if self._may_take(recipe):
                    self.trials.take(recipe, is_baseline=True)

    def _train(self) -> None:
        """Try chains of what trains, each carried on in the ways that were best without."""
        source, trials = self.trials.runner.source, self.trials
        kinds = chained(source.form, trials.effort, trials.goal)
        if not (kinds and trials.pace.chains):
            return
        if trials.bench.samples().synthetic:
            trials.listen(Note("nothing is trained on made-up inputs; give samples for that"))
            return
        if not OPTUNA.is_met():
            trials.listen(
                Note(
                    f"what trains is not searched without {OPTUNA.package}: pip install strop[{OPTUNA.extra}]"
                )
            )
            return
        ends = [trial.recipe for trial in self._leaders(_ENDS)]
        trials.listen(StageStarted("training", trials.pace.chains * len(ends)))
        chains = Chains(kinds, self.space.known, trials.bench.seed)
        for _ in range(trials.pace.chains):
            chain = chains.propose()
            if chain is None or self._cut_short:
                return
            found = [
                self._take(recipe)
                for recipe in self.space.carried_on(chain, ends)
                if self._may_take(recipe)
            ]
            if any(trial and _declined_by(chain[0], trial) for trial in found):
                chains.leave_out(chain[0])
            chains.tell(chain, self._worth([trial for trial in found if trial]))

    def _worth(self, found: Sequence[Trial]) -> Worth | None:
        """Return what a chain came to: its best way on; None where it has none."""
        best = self.trials.best_of(found)
        if best:
            return Worth(self.trials.value(best), 0.0)
        judged = [
            (self._excess(trial.evaluation.fidelity), self.trials.value(trial))
            for trial in found
            if trial.evaluation and trial.evaluation.fidelity
        ]
        if not judged:
            return None
        excess, value = min(judged)
        return Worth(value, max(excess, _LEAST_EXCESS))

    def _excess(self, fidelity: Fidelity) -> float:
        """Return by how much a drop, or its bound where the limit is held by that, is beyond the limit."""
        goal, drop = self.trials.goal, fidelity.drop
        lost = drop.value if goal.confidence is None else drop.high
        return lost - max(goal.max_drop, fidelity.floor)

    def _look_again(self) -> None:
        """Time the best once more where calls are so short that one opening of a model tells little."""
        if self.trials.goal.minimize not in ("latency", "throughput"):
            return
        leaders = self._leaders(_LOOKED_AT_AGAIN)
        chosen = [trial for trial in leaders if self._is_short(trial, leaders[0])]
        if len(chosen) > 1:
            self.trials.listen(StageStarted("second look", len(chosen)))
            try:
                self.trials.look_again(chosen)
            except Cancelled:
                self._cut_short = True

    def _is_short(self, trial: Trial, best: Trial) -> bool:
        """Say whether a trial's calls are short, and as near the best as a second look may bring it."""
        taken = figure(trial.evaluation, f"latency_p50@{self.trials.goal.batch}")
        near = self.trials.value(trial) < _NEAR * self.trials.value(best)
        in_tensorflow = registry.runtimes.get(trial.recipe.runtime).loads_tensorflow
        return bool(taken and taken.value < _SHORT_MS and near and not in_tensorflow)

    def _stage(
        self,
        name: str,
        recipes: Sequence[Recipe],
        later: Callable[[Recipe], bool] = lambda _: False,
    ) -> None:
        """Try `recipes` in turn, those without prospects left out with the reason, and those that may come later too."""
        fresh = [
            recipe
            for recipe in recipes
            if str(recipe) not in self.trials.known and self._may_take(recipe)
        ]
        if fresh or not self._cut_short:
            self.trials.listen(StageStarted(name, len(fresh)))
        for recipe in fresh:
            if not self._may_take(recipe) or later(recipe):
                continue
            why_not = self._prospects.without(recipe)
            if why_not:
                self.trials.drop(recipe, why_not)
                continue
            trial = self._take(recipe)
            if trial and trial.state == "failed" and self._may_be_the_way(trial):
                self._fall_back(recipe)

    def _may_be_the_way(self, trial: Trial) -> bool:
        """Say whether a failure may lie in how the model was converted, and not in what came after."""
        if trial.recipe.settings.get("jit"):
            return False
        *before, last = trial.recipe.steps or (None,)
        if last is None or registry.passes.get(last.name).gives:
            return True
        return not any(
            other.state == "done" and other.recipe.steps == tuple(before)
            for other in self.trials.known.values()
        )

    def _fall_back(self, recipe: Recipe) -> None:
        """Try a refused route with its conversions' other settings until one works."""
        for steps in self.space.fallbacks(recipe.steps):
            again = replace(recipe, steps=steps)
            if str(again) in self.trials.known or not self._may_take(again):
                return
            trial = self._take(again)
            if trial is None or trial.state == "done":
                return

    def _may_take(self, recipe: Recipe) -> bool:
        """Say whether there is time for a trial; for one that was made before there always is."""
        if self.trials.is_over() and not self.trials.has(recipe):
            self._cut_short = True
            return False
        return True

    def _take(self, recipe: Recipe) -> Trial | None:
        """Return the trial of `recipe`; None where the budget ended it midway."""
        try:
            trial = self.trials.take(recipe)
        except Cancelled:
            self._cut_short = True
            return None
        self._note_form(trial)
        return trial

    def _note_form(self, trial: Trial) -> None:
        """Remember the first chain of conversions that worked for a form."""
        steps = trial.recipe.steps
        if trial.state != "done" or any(not s.name.startswith("convert.") for s in steps):
            return
        form = self.trials.runner.source.form
        for step in steps:
            form = registry.passes.get(step.name).gives or form
        self._worked.setdefault(form, steps)
        # A technique may start from a form on the way that no engine of its own was tried in.
        passed = self.trials.runner.source.form
        for count, step in enumerate(steps, 1):
            passed = registry.passes.get(step.name).gives or passed
            self._worked.setdefault(passed, steps[:count])

    def _best_ways(self) -> dict[Form, tuple[Step, ...]]:
        """Return the chain of conversions to build on for each form: the fastest that keeps the limits."""
        best = dict(self._worked)
        for trial in reversed(self.trials.ranked()):  # the best last, to stand
            steps = trial.recipe.steps
            if steps and all(step.name.startswith("convert.") for step in steps):
                form = registry.passes.get(steps[-1].name).gives
                if form:
                    best[form] = steps
        return best

    def _hopeful_techniques(self) -> list[Recipe]:
        """Return the techniques on the best way to each form, those left out whose form is hopelessly behind."""
        ways, hopeful = self._best_ways(), []
        for recipe in self.space.techniques(ways):
            reason = self._prospects.hopeless(ways.get(self._form_of(recipe)))
            if reason:
                self.trials.drop(recipe, reason)
            else:
                hopeful.append(recipe)
        return hopeful

    def _form_of(self, recipe: Recipe) -> Form:
        """Return the form that a recipe's steps end in."""
        form = self.trials.runner.source.form
        for step in recipe.steps:
            form = registry.passes.get(step.name).gives or form
        return form

    def _repairs(self) -> Iterable[Recipe]:
        """Yield what missed the limit and would pay if it did not, with accuracy repair on."""
        best = self.trials.best_of(self.trials.known.values())
        missed = [
            t
            for t in self.trials.known.values()
            if t.state == "done" and t.evaluation and t.reason
        ]
        for trial in sorted(missed, key=self.trials.value)[: self.trials.pace.finalists]:
            repaired = self.space.repaired(trial.recipe)
            # Layers left in float cost time; what is no faster than the best without repair won't be with it.
            if repaired and (best is None or self.trials.value(trial) < self.trials.value(best)):
                yield repaired

    def _untried_settings(self) -> Iterable[Recipe]:
        """Yield the best models under their runtimes' other settings."""
        for trial in self._leaders(self.trials.pace.tuned):
            for settings in self.space.settings(registry.runtimes.get(trial.recipe.runtime)):
                yield trial.recipe.on(trial.recipe.runtime, settings)

    def _micro_batches(self) -> Iterable[Recipe]:
        """Yield the best models with their batch cut into parts, where that can change what is minimized."""
        source = self.trials.runner.source
        is_fixed = source.binding.batch or source.signature.batch  # no conversion makes it another
        if not is_fixed and self.trials.goal.minimize in ("latency", "throughput"):
            for trial in self._leaders(self.trials.pace.tuned):
                yield from self.space.micro_batches(trial.recipe)

    def _leaders(self, most: int) -> list[Trial]:
        """Return the best trial of each of the best models in their runtimes, the best first."""
        best: dict[tuple[tuple[Step, ...], str], Trial] = {}
        for trial in self.trials.ranked():
            best.setdefault((trial.recipe.steps, trial.recipe.runtime), trial)
        return list(best.values())[:most]

    def _conclude(self, baseline: Trial, *, by_user: bool) -> Outcome:
        """Let the finalists race, confirm the winner, and write down what was found."""
        final = Final(self.trials, baseline)
        try:
            final.decide(hurried=by_user)
        except KeyboardInterrupt:
            self.trials.listen(Note("interrupted before the final was over"))
            by_user = True
        self._explain_all()
        return Outcome(
            final.baseline,
            tuple(sorted(self.trials.known.values(), key=lambda t: t.number)),
            final.best,
            None if final.best else self._nearest(),
            final.model,
            final.confirmed,
            tuple(final.pairs),
            self._explanations,
            self._cut_short or by_user,
            by_user,
            time.monotonic() - self.trials.started,
            self.trials.looks,
        )

    def _nearest(self) -> Trial | None:
        """Return the trial that misses the limits by least."""
        missed = [
            (trial, trial.evaluation.fidelity)
            for trial in self.trials.known.values()
            if trial.reason
            and trial.evaluation
            and trial.evaluation.fidelity
            and trial.evaluation.fidelity.finite
        ]

        def gap(pair: tuple[Trial, Fidelity]) -> tuple[float, float]:
            _, fidelity = pair
            return max(fidelity.drop.value - self.trials.goal.max_drop, 0.0), -fidelity.sqnr_db

        return min(missed, key=gap)[0] if missed else None

    def _explain_all(self) -> None:
        known = list(self.trials.known.values())
        original = self.trials.known[str(self.trials.baseline)]
        for trial in known:
            runtime = registry.runtimes.get(trial.recipe.runtime)
            if trial.evaluation and trial is not original and not runtime.is_for_comparison:
                self._explanations[trial.key] = explain(
                    trial, known, original, self.trials.goal, this_machine()
                )


def _declined_by(step: Step, trial: Trial) -> bool:
    """Say whether a trial ended because `step` had nothing to do."""
    return trial.state == "declined" and trial.reason.startswith(f"{step.name}:")
