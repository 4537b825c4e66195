"""When weights are dropped, and what share of them."""

from __future__ import annotations

import abc
from typing import Any, Self

from strop.numerics import schedules as numerics
from strop.numerics.schedules import Schedule


class PruningSchedule(abc.ABC):
    """When weights are dropped, and what share of them: called with a step, it says both.

    To make one of your own, write `__call__` and `get_config`.
    """

    @abc.abstractmethod
    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Return whether weights are dropped before `step`, counted from 0, and the share that is zero then."""

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the schedule of a config, with the name of the class around it or without."""
        return cls(**(config["config"] if set(config) == {"class_name", "config"} else config))

    def _should_prune_in_step(
        self, step: Any, begin_step: int, end_step: int, frequency: int
    ) -> bool:
        """Say whether it is time, for schedules of one's own: every `frequency` steps; −1 for no end."""
        now = int(step)
        is_over = 0 <= end_step < now
        return now >= begin_step and not is_over and (now - begin_step) % frequency == 0

    def _validate_step(
        self, begin_step: int, end_step: int, frequency: int, allow_negative_1: bool
    ) -> None:
        numerics.ConstantSparsity(0.0, begin_step, end_step, frequency)
        if end_step == -1 and not allow_negative_1:
            raise ValueError("expected a last step that is not negative, got end_step=-1")

    def _validate_sparsity(self, sparsity: float, variable_name: str) -> None:
        if not 0 <= sparsity < 1:
            raise ValueError(f"expected {variable_name} from 0 to below 1, got {sparsity!r}")


class ConstantSparsity(PruningSchedule):
    """The same share of zeros from one step on."""

    def __init__(
        self, target_sparsity: float, begin_step: int, end_step: int = -1, frequency: int = 100
    ) -> None:
        """Set up.

        Args:
            target_sparsity: The share of zeros, in [0, 1).
            begin_step: The first step with zeros.
            end_step: The last step at which zeros are chosen anew; −1 for no last one.
            frequency: Steps from one choice to the next.

        Raises:
            ValueError: If a value lies outside of what it may be.
        """
        self.target_sparsity = float(target_sparsity)
        self.begin_step, self.end_step = int(begin_step), int(end_step)
        self.frequency = int(frequency)
        self.steps: Schedule = numerics.ConstantSparsity(
            self.target_sparsity, self.begin_step, self.end_step, self.frequency
        )

    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Return whether zeros are chosen before `step`, and their share."""
        return self.steps.is_update(int(step)), self.target_sparsity

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        names = ("target_sparsity", "begin_step", "end_step", "frequency")
        return _config(self, names)


class PolynomialDecay(PruningSchedule):
    """A share of zeros that grows fast at first and slowly in the end; at `end_step` it is `final_sparsity`."""

    def __init__(
        self,
        initial_sparsity: float,
        final_sparsity: float,
        begin_step: int,
        end_step: int,
        power: float = 3,
        frequency: int = 100,
    ) -> None:
        """Set up.

        Args:
            initial_sparsity: The share of zeros at `begin_step`, in [0, 1).
            final_sparsity: The share of zeros from `end_step` on, in [0, 1).
            begin_step: The first step with zeros.
            end_step: The step from which on the share stays.
            power: How much faster it grows at first.
            frequency: Steps from one choice of zeros to the next; the last one is made whatever it is.

        Raises:
            ValueError: If a value lies outside of what it may be.
        """
        self.initial_sparsity, self.final_sparsity = float(initial_sparsity), float(final_sparsity)
        self.begin_step, self.end_step = int(begin_step), int(end_step)
        self.power, self.frequency = power, int(frequency)
        self.steps: Schedule = numerics.PolynomialDecay(
            self.initial_sparsity,
            self.final_sparsity,
            self.begin_step,
            self.end_step,
            power=self.power,
            frequency=self.frequency,
        )

    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Return whether zeros are chosen before `step`, and their share."""
        now = max(int(step), self.begin_step)  # before, the share is that of the first zeros
        return self.steps.is_update(int(step)), self.steps.sparsity_at(now)

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        names = ("initial_sparsity", "final_sparsity", "power", "begin_step", "end_step", "frequency")  # fmt: skip
        return _config(self, names)


class Asked:
    """Someone's own schedule, asked step by step; what it said last holds until it says more.

    Attributes:
        target: The share that the pattern comes to, or as much as there can be.
    """

    def __init__(self, schedule: PruningSchedule, said: float, always: float | None) -> None:
        """Set up.

        Args:
            schedule: Who is asked.
            said: The share of zeros so far.
            always: The share whenever it is time, where a pattern has but one; None for what the schedule says.
        """
        self.target = 1.0 if always is None else always
        self._schedule, self._said, self._always = schedule, said, always

    def sparsity_at(self, step: int) -> float:
        """Return the share of zeros that training is to go on with."""
        return self._said

    def is_update(self, step: int) -> bool:
        """Say whether masks are chosen anew before `step`."""
        is_due, share = self._schedule(step)
        if is_due and float(share):  # a share of 0 means: nothing is dropped this time
            self._said = float(share) if self._always is None else self._always
        return bool(is_due)


def steps_of(schedule: PruningSchedule, *, said: float, always: float | None) -> Schedule:
    """Return a schedule as strop's pruning takes it; for the arguments see `Asked`."""
    # One that says something else than these has the last word, though it may be derived from them.
    ours = {kind.__call__ for kind in (ConstantSparsity, PolynomialDecay)}
    if not isinstance(schedule, ConstantSparsity | PolynomialDecay):
        return Asked(schedule, said, always)
    if type(schedule).__call__ in ours and (always is None or schedule.steps.target >= always):
        return schedule.steps
    return Asked(schedule, said, always)


def _config(schedule: PruningSchedule, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "class_name": type(schedule).__name__,
        "config": {name: getattr(schedule, name) for name in names},
    }
