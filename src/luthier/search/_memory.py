"""What the algorithms remember of trials between two calls: encoded rows and losses. Never changes an answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luthier.objectives import Objectives
from luthier.pareto import Array
from luthier.search._encode import Encoding
from luthier.space import Space
from luthier.trial import Status, Trial


class Memory:
    """Encoded trials of one space and one set of objectives, by the trial records themselves.

    Args:
        space: the space.
        objectives: what is wanted.
    """

    def __init__(self, space: Space, objectives: Objectives) -> None:
        self.space, self.objectives = space, objectives
        self.encoding = Encoding(space)
        self._known: dict[int, tuple[Trial, Array, Array]] = {}

    def _read(self, trial: Trial) -> tuple[Trial, Array, Array]:
        known = self._known.get(trial.number)
        if known is None or known[0] is not trial:
            fits = all(n in self.space.parameters for n in trial.params)
            row = self.encoding.rows(trial.params) if fits else np.full(len(self.encoding), 0.5)
            losses = self.objectives.losses(trial.metrics)
            lack = self.objectives.violation(trial.metrics)
            known = self._known[trial.number] = (trial, row, np.append(losses, lack))
        return known

    def rows(self, trials: Sequence[Trial]) -> Array:
        """Unit rows, shape (n, d)."""
        return np.array([self._read(t)[1] for t in trials]).reshape(len(trials), len(self.encoding))

    def outcomes(self, trials: Sequence[Trial]) -> tuple[Array, Array]:
        """Losses, shape (n, m), NaN where there are none; and what constraints lack, shape (n,)."""
        m = len(self.objectives.names)
        table = np.array([self._read(t)[2] for t in trials]).reshape(len(trials), m + 1)
        failed = np.array([t.status is Status.FAILED for t in trials], dtype=bool)
        table[failed, :m] = np.nan
        return table[:, :m], table[:, m]


def recall(memory: Memory | None, space: Space, objectives: Objectives) -> Memory:
    """The memory, or a new one where it is of another space or other objectives."""
    if memory is not None and memory.space is space and memory.objectives == objectives:
        return memory
    return Memory(space, objectives)
