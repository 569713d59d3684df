"""The median rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from luthier.errors import UsageError
from luthier.objectives import Objectives
from luthier.stop import diverged
from luthier.trial import Trial


@dataclass(frozen=True)
class Median:
    """Stops a trial that stands in the worse half of all that got as far.

    Gentler than ASHA and without rungs: a trial is judged at every report. With several objectives,
    halves are of the order by non-dominated rank, then crowding, constraints first.

    Args:
        min_steps: no trial is stopped before this step.
        min_trials: nor before so many others have reported at the step.
        share: the part of the field that may go on; 0.5 is the median.

    Raises:
        UsageError: a negative number, or a share outside (0, 1).

    Source:
        Golovin et al., "Google Vizier: a service for black-box optimization", KDD 2017, section 3.3.2
        (there with averages over each curve; here by the value at the step, so that several objectives
        and constraints can take part).
    """

    min_steps: int = 1
    min_trials: int = 5
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.min_steps < 0 or self.min_trials < 1:
            raise UsageError(
                "Median: numbers too small",
                expected="min_steps >= 0 and min_trials >= 1",
                got=f"min_steps={self.min_steps}, min_trials={self.min_trials}",
            )
        if not 0 < self.share < 1:
            raise UsageError("Median: 'share' is not a share", expected="0 < share < 1", got=self.share)

    def stops(self, trial: Trial, others: Sequence[Trial], objectives: Objectives) -> str | None:
        """See :class:`luthier.stop.StopRule`."""
        if reason := diverged(trial, objectives):
            return reason
        step = trial.reports[-1].step
        if step < self.min_steps:
            return None
        place, field = objectives.position(trial, others, step)
        if field <= self.min_trials or place < field * self.share:
            return None
        return f"median: place {place + 1} of {field} at step {step}"


METHOD = Median
