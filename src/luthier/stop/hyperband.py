"""Hyperband, without waiting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from luthier.objectives import Objectives
from luthier.stop.asha import ASHA
from luthier.trial import Trial


@dataclass(frozen=True)
class Hyperband:
    """Several ASHA races whose first rungs lie further and further out, in case the early rungs mislead.

    A trial's number decides its race, so that the choice is the same whoever makes it. Of S races, the one whose
    first rung lies s rungs below the top gets ceil(S / (s + 1) * factor^s) trials of each round, as in the paper, and
    so about the same number of steps as every other; they are spread evenly over the round. ``promote`` as in ASHA.

    When it helps: as ASHA, where nobody knows how early a curve can be judged.
    When it hurts: few trials: a round has some (143 for 81 steps), and the last race never stops any.

    Args:
        min_steps: the first rung of the earliest race.
        max_steps: where trials end anyway; the last race never stops a trial.
        factor: eta; 3 keeps a third at each rung.
        promote: whether trials pause and are promoted, rather than stopped.

    Raises:
        UsageError: not 1 <= min_steps <= max_steps, or factor < 2.

    Example:
        >>> rule = Hyperband(min_steps=1, max_steps=9, factor=3)
        >>> [rule.race(number) for number in range(17)].count(0), rule.sizes()
        (9, [9, 5, 3])

    Source:
        Li et al., "Hyperband: a novel bandit-based approach to hyperparameter optimization", JMLR 2018, algorithm
        1; its asynchronous form as in Li et al., MLSys 2020, section 3.2.
    """

    min_steps: int = 1
    max_steps: int = 81
    factor: int = 3
    promote: bool = False

    def __post_init__(self) -> None:
        ASHA(self.min_steps, self.max_steps, self.factor)

    def sizes(self) -> list[int]:
        """How many trials of a round each race gets, the race with the earliest rung first."""
        races = len(list(ASHA(self.min_steps, None, self.factor).rungs(self.max_steps)))
        return [math.ceil(races * self.factor**s / (s + 1)) for s in reversed(range(races))]

    def race(self, number: int) -> int:
        """The race of a trial: 0 is the one with the earliest rung."""
        order = _round(tuple(self.sizes()))
        return order[number % len(order)]

    def _rule(self, race: int) -> ASHA:
        first = min(self.min_steps * self.factor**race, self.max_steps)
        return ASHA(first, self.max_steps, self.factor, self.promote)

    def stops(self, trial: Trial, others: Sequence[Trial], objectives: Objectives) -> str | None:
        """See :class:`luthier.stop.StopRule`."""
        race = self.race(trial.number)
        reason = self._rule(race).stops(trial, self._members(others, race), objectives)
        return reason and reason.replace("ASHA", f"Hyperband, race {race}")

    def pauses(self, trial: Trial, objectives: Objectives) -> str | None:
        """See :class:`luthier.stop.Promoter`."""
        race = self.race(trial.number)
        reason = self._rule(race).pauses(trial, objectives)
        return reason and reason.replace("ASHA", f"Hyperband, race {race}")

    def promotes(self, trials: Sequence[Trial], objectives: Objectives, closing: bool = False) -> int | None:
        """See :class:`luthier.stop.Promoter`."""
        for race in range(len(self.sizes())):
            found = self._rule(race).promotes(self._members(trials, race), objectives, closing)
            if found is not None:
                return found
        return None

    def _members(self, trials: Sequence[Trial], race: int) -> list[Trial]:
        return [t for t in trials if self.race(t.number) == race]


@cache
def _round(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The race of each trial of a round: always the one that is furthest behind its share."""
    total, given, out = sum(sizes), [0] * len(sizes), list[int]()
    for i in range(total):
        race = max(range(len(sizes)), key=lambda r: sizes[r] * (i + 1) - given[r] * total)
        given[race] += 1
        out.append(race)
    return tuple(out)


METHOD = Hyperband
