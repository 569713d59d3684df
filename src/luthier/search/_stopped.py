"""What trials that were stopped early would have come to, as far as those that ran to their end tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from luthier.pareto import Array
from luthier.trial import Status, Trial

_LATEST = 64  # completed trials that tell what is lost between a step and the end


class Curves:
    """Losses of trials, and what constraints lack, at the steps that they reported, each read once.

    Args:
        read: from metrics to numbers of which larger ones are worse, NaN where unknown, shape (m,).
    """

    def __init__(self, read: Callable[[Mapping[str, float]], Array]) -> None:
        self._read = read
        self._known: dict[tuple[int, int], tuple[Trial, Array]] = {}

    def settled(self, trials: Sequence[Trial], stopped: Sequence[int], numbers: Array) -> Array:
        """Numbers in which those of stopped trials stand for their end.

        Where results get worse with the steps (costs that add up, say), those of trials that were stopped would look
        best. So each is made worse by what the latest 64 completed trials lost, on median, from the step of its last
        report to their end; where they did not lose, it stays.

        Args:
            trials: n of them.
            stopped: indices of those that were stopped.
            numbers: theirs, shape (n, m).

        Returns:
            shape (n, m).
        """
        if not stopped:
            return numbers
        done = [(t, numbers[i]) for i, t in enumerate(trials) if t.status is Status.COMPLETE and t.reports]
        done = done[-_LATEST:]
        if not done:
            return numbers
        out = numbers.copy()
        lost: dict[int, Array] = {}
        for i in (i for i in stopped if trials[i].reports):
            step = trials[i].reports[-1].step
            if step not in lost:
                lost[step] = self._lost(done, step)
            with np.errstate(over="ignore"):
                out[i] += lost[step]
        return out

    def _lost(self, done: Sequence[tuple[Trial, Array]], step: int) -> Array:
        """What trials lost from a step to their end, at least 0, shape (m,)."""
        there = [(final, self._at(t, step)) for t, final in done if t.reports[-1].step >= step]
        if not there:
            return np.zeros(len(done[0][1]))
        with np.errstate(over="ignore"):
            gaps = np.array([final - now for final, now in there])
        known = [column[np.isfinite(column)] for column in gaps.T]
        return np.array([max(float(np.median(k)), 0.0) if len(k) else 0.0 for k in known])

    def _at(self, trial: Trial, step: int) -> Array:
        known = self._known.get((trial.number, step))
        if known is None or known[0] is not trial:
            known = self._known[trial.number, step] = trial, self._read(trial.at(step))
        return known[1]
