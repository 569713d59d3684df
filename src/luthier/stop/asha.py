"""Asynchronous successive halving."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from luthier.errors import UsageError
from luthier.objectives import Objectives
from luthier.stop import diverged
from luthier.trial import Trial


@dataclass(frozen=True)
class ASHA:
    """At each rung, a trial goes on only if it is among the best 1/factor of those that got as far.

    Rungs lie at min_steps * factor^k, below max_steps. Trials never wait for each other: each is judged
    against those that have reached its rung so far, and the first ``factor - 1`` at a rung go on. With
    several objectives the best are those of low non-dominated rank, then of large crowding distance,
    constraints first.

    Args:
        min_steps: the first rung; a step is whatever number the objective reports.
        max_steps: where trials end anyway; None: unknown.
        factor: eta; 3 keeps a third at each rung.

    Raises:
        UsageError: not 1 <= min_steps <= max_steps, or factor < 2.

    Example:
        >>> list(ASHA(min_steps=1, max_steps=27, factor=3).rungs(20))
        [1, 3, 9]

    Source:
        Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020, in its stopping form.
    """

    min_steps: int = 1
    max_steps: int | None = None
    factor: int = 3

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
        before = trial.reports[-2].step if len(trial.reports) > 1 else -1
        crossed = [r for r in self.rungs(step) if r > before]
        if not crossed:
            return None
        place, field = objectives.position(trial, others, step)
        if field < self.factor or place < field // self.factor:
            return None
        return f"ASHA: place {place + 1} of {field} at step {step}"


METHOD = ASHA
