"""What a study found, and under what circumstances: the value that reports are written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strop.core.evaluation import Evaluation, Fidelity, Goal, Measurement
from strop.core.model import Model
from strop.engine.ledger import Trial
from strop.engine.pairs import Pair


@dataclass(frozen=True)
class Outcome:
    """What a study found.

    Attributes:
        baseline: The source as its owner runs it today.
        trials: Every trial, the baseline and what is shown for comparison included.
        best: The winner; the baseline itself where nothing beat it; None where nothing met the goal.
        nearest: Where nothing met the goal, what came nearest.
        model: The winner's model.
        confirmed: The winner's quality on *confirm*.
        pairs: The finalists against the baseline, paired.
        explanations: Why a trial did not help, by its key.
        interrupted: Whether the user or the budget ended the search early.
        by_user: Whether it was the user.
        seconds: How long it took, this time.
        looks: How many candidates were judged on *confirm*, in earlier runs and under other limits too: each look makes
            it a little less unseen.
    """

    baseline: Trial
    trials: tuple[Trial, ...]
    best: Trial | None
    nearest: Trial | None
    model: Model | None
    confirmed: Fidelity | None
    pairs: tuple[Pair, ...]
    explanations: dict[str, str]
    interrupted: bool
    by_user: bool
    seconds: float
    looks: int = 1

    @property
    def nothing_ran(self) -> bool:
        """Whether not one candidate came as far as being measured; the budget may have ended the search before."""
        return not any(
            trial.state == "done" and trial.evaluation and trial.evaluation.fidelity
            for trial in self.trials
        )

    def pair_of(self, trial: Trial) -> Pair | None:
        """Return the paired comparison of a trial with the baseline, if it was a finalist."""
        return next((pair for pair in self.pairs if pair.name == str(trial.recipe)), None)


@dataclass(frozen=True)
class Circumstances:
    """What a reader must know to judge an outcome, and to reach it again.

    Attributes:
        source_name: The model's name for people (its file's name).
        source: The model.
        goal: What was minimized under which limits.
        question: One sentence: which metric, and why; or what was judged instead.
        synthetic: Whether the samples were made up.
        notes: Sentences on samples and source.
        machine: Plain values.
        versions: Of packages, by name.
        command: What does it again.
        date: Of the study, ISO.
        effort: How hard was tried.
    """

    source_name: str
    source: Model
    goal: Goal
    question: str
    synthetic: bool
    notes: tuple[str, ...]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    command: str
    date: str
    effort: str


def figure(evaluation: Evaluation | None, name: str) -> Measurement | None:
    """Return a measurement by name, or None."""
    return evaluation.measurements.get(name) if evaluation else None
