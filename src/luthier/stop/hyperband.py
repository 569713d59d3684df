"""Hyperband, without waiting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from luthier.objectives import Objectives
from luthier.stop.asha import ASHA
from luthier.trial import Trial


@dataclass(frozen=True)
class Hyperband:
    """Several ASHA races whose first rungs lie further and further out, in case the early rungs mislead.

    A trial's number decides its race, so that the choice is the same whoever makes it. A race that starts
    s rungs later gets 1/factor^s of the trials of the first one, and so about the same number of steps.

    Args:
        min_steps: the first rung of the earliest race.
        max_steps: where trials end anyway; the last race never stops a trial.
        factor: eta; 3 keeps a third at each rung.

    Raises:
        UsageError: not 1 <= min_steps <= max_steps, or factor < 2.

    Example:
        >>> rule = Hyperband(min_steps=1, max_steps=9, factor=3)
        >>> [rule.race(number) for number in range(9)]
        [0, 0, 1, 0, 0, 1, 0, 0, 2]

    Source:
        Li et al., "Hyperband: a novel bandit-based approach to hyperparameter optimization", JMLR 2018; its
        asynchronous form as in Li et al., MLSys 2020, section 3.2.
    """

    min_steps: int = 1
    max_steps: int = 81
    factor: int = 3

    def __post_init__(self) -> None:
        ASHA(self.min_steps, self.max_steps, self.factor)

    def race(self, number: int) -> int:
        """The race of a trial: s for one in factor^s, up to the last race."""
        last = len(list(ASHA(self.min_steps, None, self.factor).rungs(self.max_steps))) - 1
        s = 0
        while s < last and (number + 1) % self.factor ** (s + 1) == 0:
            s += 1
        return s

    def stops(self, trial: Trial, others: Sequence[Trial], objectives: Objectives) -> str | None:
        """See :class:`luthier.stop.StopRule`."""
        race = self.race(trial.number)
        rule = ASHA(min(self.min_steps * self.factor**race, self.max_steps), self.max_steps, self.factor)
        reason = rule.stops(trial, [t for t in others if self.race(t.number) == race], objectives)
        return reason and reason.replace("ASHA", f"Hyperband, race {race}")


METHOD = Hyperband
