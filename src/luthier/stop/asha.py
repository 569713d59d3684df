"""Asynchronous successive halving."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from luthier.errors import UsageError
from luthier.objectives import Objectives
from luthier.stop import crossed, diverged
from luthier.trial import Status, Trial


@dataclass(frozen=True)
class ASHA:
    """At each rung, a trial goes on only if it is among the best 1/factor of those that got as far.

    Rungs lie at min_steps * factor^k, below max_steps. Trials never wait for each other: each is judged
    against those that have reached its rung so far, and the first ``factor - 1`` at a rung go on. With
    several objectives the best are those of low non-dominated rank, then of large crowding distance,
    constraints first.

    With ``promote=True`` every trial pauses at each rung and frees its worker; whenever one is free, the best
    paused trial that is among the best 1/factor of its rung goes on, from the highest rung down, and only if there
    is none a new one starts. At the end the best of each rung goes on, too, however small the field. Nobody goes on by
    having come early, at the price of a checkpoint: the objective is called again, with ``trial.resumed``,
    ``trial.step`` and its folder ``trial.checkpoint``.

    When it helps: training curves whose early part tells which are hopeless.
    When it hurts: curves that cross late; promotion without a checkpoint, which trains again from the beginning.

    Args:
        min_steps: the first rung; a step is whatever number the objective reports.
        max_steps: where trials end anyway; None: unknown.
        factor: eta; 3 keeps a third at each rung.
        promote: whether trials pause and are promoted, rather than stopped.

    Raises:
        UsageError: not 1 <= min_steps <= max_steps, or factor < 2.

    Example:
        >>> list(ASHA(min_steps=1, max_steps=27, factor=3).rungs(20))
        [1, 3, 9]

    Source:
        Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020, algorithm 2 where
        trials are promoted; else in its stopping form.
    """

    min_steps: int = 1
    max_steps: int | None = None
    factor: int = 3
    promote: bool = False

    def __post_init__(self) -> None:
        top = self.max_steps
        if self.min_steps < 1 or (top is not None and top < self.min_steps):
            raise UsageError(
                "ASHA: the steps do not rise",
                expected="1 <= min_steps <= max_steps",
                got=f"min_steps={self.min_steps}, max_steps={top}",
            )
        if self.factor < 2:
            raise UsageError("ASHA: 'factor' is too small", expected="factor >= 2", got=self.factor)

    def rungs(self, step: int) -> Iterator[int]:
        """The rungs up to a step."""
        rung = self.min_steps
        while rung <= step and (self.max_steps is None or rung < self.max_steps):
            yield rung
            rung *= self.factor

    def stops(self, trial: Trial, others: Sequence[Trial], objectives: Objectives) -> str | None:
        """See :class:`luthier.stop.StopRule`."""
        if reason := diverged(trial, objectives):
            return reason
        step = trial.reports[-1].step
        if self.promote or not crossed(self.rungs(step), trial, objectives):
            return None
        place, field = objectives.position(trial, others, step)
        if field < self.factor or place < field // self.factor:
            return None
        return f"ASHA: place {place + 1} of {field} at step {step}"

    def pauses(self, trial: Trial, objectives: Objectives) -> str | None:
        """See :class:`luthier.stop.Promoter`."""
        step = trial.reports[-1].step
        return f"ASHA: waits at step {step}" if crossed(self.rungs(step), trial, objectives) else None

    def promotes(self, trials: Sequence[Trial], objectives: Objectives, closing: bool = False) -> int | None:
        """See :class:`luthier.stop.Promoter`."""
        waiting = [(t.number, t.floor) for t in trials if t.status is Status.PAUSED]
        rungs = list(self.rungs(max((step for _, step in waiting), default=-1)))
        for rung, above in reversed(list(zip_longest(rungs, rungs[1:], fillvalue=math.inf))):
            here = {number for number, step in waiting if rung <= step < above}
            field = objectives.standing(trials, int(rung)) if here else []
            for trial in field[: max(len(field) // self.factor, int(closing))]:
                if trial.number in here:
                    return trial.number
        return None


METHOD = ASHA
