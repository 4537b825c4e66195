"""The final of a study: a race in turn, and a look at what nobody has seen."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from strop.core import digest
from strop.core.errors import (
    MetricError,
    NothingWorkedError,
    SubjectError,
    TrialError,
)
from strop.core.evaluation import (
    SIZES,
    Evaluation,
    Fidelity,
    Measurement,
)
from strop.core.model import Model
from strop.core.recipe import Recipe
from strop.engine.ledger import Trial
from strop.engine.pairs import LEAST_ROUNDS, Pair, compare, in_turn, paired
from strop.engine.running import gist
from strop.search.events import (
    Note,
    StageStarted,
)
from strop.search.trials import Trials

_ALL_BUT_EQUAL = 1.03
_MADE, _RACED, _CONFIRMED = "made", "raced", "confirmed"  # where a finalist may be rejected
_PROCESS_ROUNDS = 5  # of fresh processes, for what only a fresh process shows


def by_merit(pairs: Sequence[Pair], trial_values: Mapping[str, float]) -> list[str]:
    """Return finalists by name, the best first.

    The race decides. Between those that it can't tell apart, and that are all but equal in it, their trials do, which
    were measured in quieter circumstances than between processes that go to sleep in turn.

    Args:
        pairs: The finalists, each against the baseline and the first of them.
        trial_values: What each was measured at as a trial; the smaller the better.
    """

    def merit(pair: Pair) -> tuple[bool, float]:
        to_first = pair.to_first
        is_equal = to_first is None or (not pair.is_told_apart and to_first.value < _ALL_BUT_EQUAL)
        return not is_equal, trial_values[pair.name] if is_equal else pair.ratio.value

    return [pair.name for pair in sorted(pairs, key=merit)]


@dataclass
class Final:
    """Finalists and baseline in turn, then the first of them on samples that nobody has looked at.

    What it has come to stands in its attributes, so that an interruption loses nothing of it.

    Attributes:
        trials: All of the study.
        baseline: The source as its owner runs it today.
        best: The winner; the baseline where nothing was proved better; None where nothing holds.
        model: The winner's.
        confirmed: The winner's quality on *confirm*.
        pairs: The finalists against the baseline.
    """

    trials: Trials
    baseline: Trial
    best: Trial | None = None
    model: Model | None = None
    confirmed: Fidelity | None = None
    pairs: list[Pair] = field(default_factory=list)

    def decide(self, *, hurried: bool) -> None:
        """Race finalists against the baseline and each other until the best of them holds on *confirm*."""
        while self.best is None:
            finalists = self._finalists()
            self.trials.listen(StageStarted("final", len(finalists)))
            if not finalists:
                return
            models = self._models_of(finalists)
            pairs = self._race(self.baseline, models, hurried=hurried)
            self.pairs += pairs
            self._confirm_first(pairs, models)
        if not any(p.name == str(self.best.recipe) and p.ratio.high < 1 for p in self.pairs):
            self.trials.listen(
                Note(f"{self.best.recipe} was not proved better than the original, which is kept")
            )
            self.best, self.model, self.confirmed = self.baseline, self.trials.runner.source, None
            with contextlib.suppress(TrialError):  # the report says then that it was not confirmed
                self.confirmed = self.trials.confirmed_of(self.baseline, self.model)
        assert self.model is not None  # noqa: S101 - it was confirmed
        if not hurried:  # who interrupts does not want to wait for processes to start
            was_best = self.best is self.baseline
            self.baseline = self.trials.with_costs(self.baseline, self.trials.runner.source)
            self.best = (
                self.baseline if was_best else self.trials.with_costs(self.best, self.model)
            )

    def _confirm_first(self, pairs: Sequence[Pair], models: Mapping[Trial, Model]) -> None:
        """Take the first of the finalists, best first, that keeps the limits on *confirm*; reject those before it."""
        by_name = {str(trial.recipe): trial for trial in models}
        trial_values = {name: self.trials.value(trial) for name, trial in by_name.items()}
        for name in by_merit(pairs, trial_values):
            trial = by_name[name]
            if self.trials.reject_again(trial, at=_CONFIRMED):
                continue
            try:
                confirmed = self.trials.confirmed_of(trial, models[trial])
            except (TrialError, MetricError) as error:
                why = f"failed when it was confirmed: {gist(error)}"
                self.trials.reject_for_good(trial, why, at=_CONFIRMED)
                continue
            chosen_on = trial.evaluation.fidelity if trial.evaluation else None
            shortfall = self.trials.goal.shortfall(confirmed, chosen_on)
            if shortfall is None:
                self.best, self.model, self.confirmed = trial, models[trial], confirmed
                return
            self.trials.reject(trial, f"on samples not looked at before, {shortfall}")

    def _finalists(self) -> list[Trial]:
        """Return the best trials, at most two of one model, within reach of the best."""
        chosen: list[Trial] = []
        ranked = self.trials.ranked()
        for trial in ranked:
            same = [t for t in chosen if t.recipe.steps == trial.recipe.steps]
            close = self.trials.value(trial) <= 1.3 * self.trials.value(ranked[0])
            if len(same) < 2 and close and len(chosen) < self.trials.pace.finalists:
                chosen.append(trial)
        return chosen

    def _models_of(self, finalists: Sequence[Trial]) -> dict[Trial, Model]:
        models: dict[Trial, Model] = {}
        for trial in finalists:
            if self.trials.reject_again(trial, at=_MADE):
                continue
            try:
                prepared = self.trials.runner.prepare(
                    trial.recipe.steps,
                    runtime=trial.recipe.runtime,
                    settings=trial.recipe.settings,
                )
            except TrialError as error:
                why = f"could not be made again: {gist(error)}"
                self.trials.reject_for_good(trial, why, at=_MADE)
                continue
            if isinstance(prepared, Model):
                models[trial] = prepared
            else:
                why = f"declined when made again: {prepared.reason}"
                self.trials.reject_for_good(trial, why, at=_MADE)
        return models

    def _race(self, baseline: Trial, models: dict[Trial, Model], *, hurried: bool) -> list[Pair]:
        """Return the finalists against the baseline; those that fail are rejected and taken out of `models`."""
        for trial in list(models):
            if self.trials.reject_again(trial, at=_RACED):
                del models[trial]
        while models:
            kept = self.trials.ledger.recall(self._race_key(baseline, models))
            if kept:
                return [Pair.from_json(pair) for pair in kept]
            subjects = {str(baseline.recipe): (self.trials.runner.source, baseline.recipe)}
            subjects |= {
                str(trial.recipe): (model, trial.recipe) for trial, model in models.items()
            }
            try:
                pairs = self._measured_in_turn(subjects, str(baseline.recipe), hurried=hurried)
            except SubjectError as error:
                failed = next((t for t in models if str(t.recipe) == error.subject), None)
                if failed is None:
                    raise NothingWorkedError(f"the model itself failed: {error.reason}") from None
                why = f"failed in the final: {error.reason}"
                self.trials.reject_for_good(failed, why, at=_RACED)
                del models[failed]
                continue
            if not hurried:
                self.trials.ledger.remember(
                    self._race_key(baseline, models), [pair.to_json() for pair in pairs]
                )
            return pairs
        return []

    def _measured_in_turn(
        self, subjects: Mapping[str, tuple[Model, Recipe]], reference: str, *, hurried: bool
    ) -> list[Pair]:
        """Return the subjects against the reference in what is minimized.

        Raises:
            SubjectError: If one fails, naming it.
        """
        if self.trials.goal.minimize in ("latency", "throughput"):
            return compare(
                self.trials.executor, subjects, reference, self.trials.bench, self.trials.goal.batch,
                rounds=LEAST_ROUNDS if hurried else self.trials.pace.rounds,
                seconds=self.trials.pace.round_seconds, enough_seconds=self.trials.pace.enough_seconds,
            )  # fmt: skip
        if self.trials.goal.minimize in SIZES:  # the same each time
            sizes = {
                name: [self.trials.value(self.trials.known[str(recipe)])] * 2
                for name, (_, recipe) in subjects.items()
            }
            return [
                replace(pair, ratio=Measurement.exact(pair.ratio.value, "ratio"))
                for pair in paired(sizes, reference)
            ]

        def of_a_fresh_process(name: str) -> float:
            costs = self.trials.costs(*subjects[name], repeats=1)
            return self.trials.value_of(Evaluation(costs))

        rounds = 2 if hurried else _PROCESS_ROUNDS
        figures = in_turn(
            list(subjects), of_a_fresh_process, rounds=rounds, seed=self.trials.bench.seed
        )
        return paired(figures, reference)

    def _race_key(self, baseline: Trial, models: dict[Trial, Model]) -> str:
        return "race " + digest.of_value([baseline.key, sorted(trial.key for trial in models)])
