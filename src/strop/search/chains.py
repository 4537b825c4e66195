"""Chains of techniques that train, proposed by what earlier chains came to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from strop.core import registry
from strop.core.contracts import Effort, Needs, Pass
from strop.core.evaluation import Goal
from strop.core.model import Form
from strop.core.parameters import Value
from strop.core.recipe import Step

Chain = tuple[Step, ...]

_EXCESS = "excess"
_MOST_ASKED, _LEFT_TO_CHANCE = (
    100,
    10,
)  # how often for one chain, and after how many of them by chance


@dataclass(frozen=True)
class Worth:
    """What a chain came to.

    Attributes:
        value: Of what is minimized, the smaller the better; infinite where nothing was measured.
        excess: By how much its quality misses the limit; 0 or less where it keeps it.
    """

    value: float
    excess: float


def chained(form: Form, effort: Effort, goal: Goal) -> list[type[Pass]]:
    """Return the passes that train and may serve a goal, in the order that they come in within a chain.

    What computes as before, on weights that say less, serves what is zipped alone.
    """
    fitting = [
        kind
        for kind in registry.passes
        if kind.needs is Needs.TRAINING
        and form in kind.takes
        and effort.reaches(kind.effort)
        and not kind.missing()
        and (goal.minimize == "zipped-size" or not kind.only_shrinks_weights)
    ]
    return sorted(fitting, key=lambda kind: kind.place)


@dataclass
class Chains:
    """Proposes chains of passes that train, first each by itself, then what promises most by those before.

    The tree-structured Parzen estimator asks of each pass whether it takes part, and of each that does for its
    settings; chains that miss the limit are told apart from those that keep it. It proposes the same after the same
    results, so that a search that goes on comes by the same way.

    Attributes:
        kinds: The passes, in their order.
        names: What names in `Parameter.search` stand for; see `strop.search.space.Space`.
        seed: For its choices.
        known: What chains came to.

    References:
        Bergstra et al., *Algorithms for Hyper-Parameter Optimization*, 2011, section 4; Akiba et al., *Optuna: A
        Next-generation Hyperparameter Optimization Framework*, 2019.
    """

    kinds: Sequence[type[Pass]]
    names: Mapping[str, Value]
    seed: int = 0
    known: dict[Chain, Worth] = field(default_factory=dict)
    _left_out: set[Step] = field(default_factory=set)

    def __post_init__(self) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._estimator = optuna.samplers.TPESampler(
            seed=self.seed, n_startup_trials=len(self.kinds), multivariate=True
        )
        self._chance = optuna.samplers.RandomSampler(seed=self.seed)
        self._study = optuna.create_study(sampler=self._estimator)
        self._asked: dict[Chain, list[Any]] = {}
        for alone in self.kinds:
            self._propose_first({alone})
        if len(self.kinds) > 1:
            self._propose_first(set(self.kinds))

    def propose(self) -> Chain | None:
        """Return a chain not proposed before, to be told of by `tell`; None where nothing new comes up."""
        for count in range(_MOST_ASKED):
            # The estimator comes back to what was good; chance leads away from there.
            self._study.sampler = self._estimator if count < _LEFT_TO_CHANCE else self._chance
            trial = self._study.ask()
            chain = self._chain(trial)
            if chain and chain not in self.known:
                self._asked.setdefault(chain, []).append(trial)
                return chain
            self._tell(trial, self.known.get(chain))
        return None

    def tell(self, chain: Chain, worth: Worth | None) -> None:
        """Take in what a proposed chain came to; None where it failed."""
        self.known[chain] = worth or Worth(math.inf, math.inf)
        for trial in self._asked.pop(chain):
            self._tell(trial, worth)

    def leave_out(self, step: Step) -> None:
        """Propose chains without a step that has nothing to do for the source."""
        self._left_out.add(step)

    def _propose_first(self, taking_part: Set[type[Pass]]) -> None:
        """Have the chain of some passes, at their defaults, proposed before what the estimator thinks of."""
        wanted: dict[str, Value] = {kind.name: kind in taking_part for kind in self.kinds}
        for kind in taking_part:
            wanted |= {f"{kind.name}.{name}": value for name, value in kind.defaults().items()}
        self._study.enqueue_trial(wanted)

    def _chain(self, trial: Any) -> Chain:
        steps = [
            Step(kind.name, self._settings(trial, kind))
            for kind in self.kinds
            if trial.suggest_categorical(kind.name, [False, True])
        ]
        return tuple(step for step in steps if step not in self._left_out)

    def _settings(self, trial: Any, kind: type[Pass]) -> dict[str, Value]:
        """Return the settings that are proposed for a pass, the defaults left out."""
        defaults, settings = kind.defaults(), {}
        for name, parameter in kind.parameters().items():
            if parameter.search:
                choices = list(
                    dict.fromkeys((defaults[name], *parameter.worth_trying(self.names)))
                )
                settings[name] = trial.suggest_categorical(f"{kind.name}.{name}", choices)
        return kind.from_settings(settings).changed()

    def _tell(self, trial: Any, worth: Worth | None) -> None:
        import optuna

        if worth is None or not math.isfinite(worth.value):
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        trial.set_constraint(_EXCESS, worth.excess)
        self._study.tell(trial, worth.value)
