"""How many of the weights to drop at which step of training.

Weights go gradually, most of them early, when there are many to choose from: Eq. 1 of Zhu & Gupta, *To prune, or not to
prune: exploring the efficacy of pruning for model compression*, 2017 (arXiv:1710.01878). With the share ``s_i`` at step
``t_0`` and ``s_f`` from ``t_1`` on,

    ``s_t = s_f + (s_i − s_f)·(1 − (t − t_0)/(t_1 − t_0))³``
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """What share of the weights is to be zero at which step of training; steps count from 0."""

    @property
    def target(self) -> float:
        """The share at its end."""

    def sparsity_at(self, step: int) -> float:
        """Return the share of zeros that training is to go on with from `step`."""

    def is_update(self, step: int) -> bool:
        """Say whether masks are chosen anew before `step`."""


@dataclass(frozen=True)
class ConstantSparsity:
    """The same share of zeros from one step on.

    Attributes:
        sparsity: The share of zeros, in [0, 1).
        begin: The first step with zeros.
        end: The last step at which masks are chosen anew; −1 for no last one. Zeros stay zeros after it.
        frequency: Steps from one choice to the next.

    Raises:
        ValueError: If a value lies outside of what it may be.

    Example:
        >>> schedule = ConstantSparsity(0.5, begin=10, frequency=5)
        >>> [schedule.sparsity_at(step) for step in (9, 10, 1000)]
        [0.0, 0.5, 0.5]
        >>> [step for step in range(21) if schedule.is_update(step)]
        [10, 15, 20]
    """

    sparsity: float
    begin: int = 0
    end: int = -1
    frequency: int = 100

    def __post_init__(self) -> None:
        refuse_share(self.sparsity)
        _check_steps(self.begin, self.end, self.frequency)

    @property
    def target(self) -> float:
        """The share at its end."""
        return self.sparsity

    def sparsity_at(self, step: int) -> float:
        """Return the share of zeros that training is to go on with from `step`."""
        return self.sparsity if step >= self.begin else 0.0

    def is_update(self, step: int) -> bool:
        """Say whether masks are chosen anew before `step`."""
        return _is_due(step, self.begin, self.end, self.frequency)


@dataclass(frozen=True)
class PolynomialDecay:
    """A share of zeros that grows fast at first and slowly in the end (Zhu & Gupta, Eq. 1).

    Attributes:
        initial: The share of zeros at `begin`, in [0, 1); none before.
        final: The share of zeros from `end` on, in [0, 1).
        begin: The first step with zeros.
        end: The step from which on the share is `final`; masks are chosen for the last time then.
        power: How much faster it grows at first; 3 in the paper, 1 for a straight line.
        frequency: Steps from one choice of masks to the next.

    Raises:
        ValueError: If a value lies outside of what it may be.

    Example:
        >>> schedule = PolynomialDecay(0.0, 0.8, begin=0, end=100, frequency=40)
        >>> [round(schedule.sparsity_at(step), 3) for step in (0, 50, 100, 200)]
        [0.0, 0.7, 0.8, 0.8]
        >>> [step for step in range(200) if schedule.is_update(step)]
        [0, 40, 80, 100]
    """

    initial: float
    final: float
    begin: int
    end: int
    power: float = 3
    frequency: int = 100

    def __post_init__(self) -> None:
        refuse_share(self.initial)
        refuse_share(self.final)
        _check_steps(self.begin, self.end, self.frequency)
        if self.end < 0:
            raise ValueError("expected a last step that is not negative, got end=-1")
        if not self.power > 0:
            raise ValueError(f"expected a positive power, got {self.power!r}")

    @property
    def target(self) -> float:
        """The share at its end."""
        return self.final

    def sparsity_at(self, step: int) -> float:
        """Return the share of zeros that training is to go on with from `step`."""
        if step < self.begin:
            return 0.0
        if step >= self.end:
            return self.final
        left = (self.end - step) / (self.end - self.begin)
        return float(self.final + (self.initial - self.final) * left**self.power)

    def is_update(self, step: int) -> bool:
        """Say whether masks are chosen anew before `step`."""
        # The last step counts whatever the frequency: without it, the share would stop short of `final`.
        return step == self.end or _is_due(step, self.begin, self.end, self.frequency)


def refuse_share(sparsity: float) -> None:
    """Refuse a share of zeros that leaves nothing, or is none.

    Raises:
        ValueError: If it lies outside of [0, 1).
    """
    if not 0 <= sparsity < 1:  # asked this way round, NaN fails too
        raise ValueError(f"expected a sparsity from 0 to below 1, got {sparsity!r}")


def _check_steps(begin: int, end: int, frequency: int) -> None:
    if begin < 0:
        raise ValueError(f"expected a first step that is not negative, got {begin=}")
    if end != -1 and end < begin:
        raise ValueError(f"expected a last step not before the first, got {begin=}, {end=}")
    if frequency < 1:
        raise ValueError(f"expected at least one step from update to update, got {frequency=}")


def _is_due(step: int, begin: int, end: int, frequency: int) -> bool:
    is_over = end != -1 and step > end
    return step >= begin and not is_over and (step - begin) % frequency == 0
