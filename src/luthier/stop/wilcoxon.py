"""A paired test over folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata, wilcoxon

from luthier.errors import UsageError
from luthier.objectives import Objectives
from luthier.pareto import Array
from luthier.stop import diverged
from luthier.trial import Status, Trial


@dataclass(frozen=True)
class Wilcoxon:
    """Stops a trial whose folds are worse than the best trial's, by more than chance explains.

    For cross-validation: step k holds the metrics of fold k alone, not their running mean. The best
    completed trials (the whole front, where there are several objectives) are compared with fold by fold;
    a trial is stopped once one of them beats it significantly in every objective.

    Args:
        p: one-sided level of the signed-rank test; smaller stops later.
        min_steps: folds to see before judging; fewer than five can never be significant at p = 0.05.

    Raises:
        UsageError: p outside (0, 0.5], or min_steps < 1.

    Source:
        Wilcoxon, "Individual comparisons by ranking methods", 1945.
    """

    p: float = 0.05
    min_steps: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.p <= 0.5:
            raise UsageError("Wilcoxon: 'p' is no level", expected="0 < p <= 0.5", got=self.p)
        if self.min_steps < 1:
            raise UsageError("Wilcoxon: 'min_steps' is too small", expected="min_steps >= 1", got=self.min_steps)

    def stops(self, trial: Trial, others: Sequence[Trial], objectives: Objectives) -> str | None:
        """See :class:`luthier.stop.StopRule`."""
        if reason := diverged(trial, objectives):
            return reason
        if len(trial.reports) < self.min_steps:
            return None
        done = [t for t in others if t.status is Status.COMPLETE]
        for rival in objectives.front(done):
            if self._beats(rival, trial, objectives):
                return f"Wilcoxon: worse than trial {rival.number} over {len(trial.reports)} folds (p < {self.p:g})"
        return None

    def _beats(self, rival: Trial, trial: Trial, objectives: Objectives) -> bool:
        theirs = {r.step: r.metrics for r in rival.reports}
        pairs = [(r.metrics, theirs[r.step]) for r in trial.reports if r.step in theirs]
        if len(pairs) < self.min_steps:
            return False
        lacks = np.array(
            [objectives.violation(mine) - objectives.violation(other) for mine, other in pairs]
        )  # (folds,)
        if lacks.mean() != 0:  # constraints come first
            return _worse(lacks, self.p)
        gaps = np.array([objectives.losses(mine) - objectives.losses(other) for mine, other in pairs])  # (folds, m)
        return all(map(_leans, gaps.T)) and all(_worse(column, self.p) for column in gaps.T)


def _leans(gaps: Array) -> bool:
    """Whether the ranks are on the worse side at all: cheap to know, and needed for every p below one half."""
    known = gaps[~np.isnan(gaps)]
    ranks = rankdata(np.abs(known))
    return bool(ranks[known > 0].sum() > ranks[known < 0].sum())


def _worse(gaps: Array, p: float) -> bool:
    known = gaps[~np.isnan(gaps)]
    if not known.any():
        return False
    return bool(wilcoxon(known, alternative="greater", zero_method="zsplit").pvalue < p)


METHOD = Wilcoxon
