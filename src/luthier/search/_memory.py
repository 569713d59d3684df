"""What the algorithms remember of trials between two calls: encoded rows and losses. Never changes an answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier import pareto
from luthier.objectives import Constraint, Objectives
from luthier.pareto import Array
from luthier.search._encode import Encoding
from luthier.space import Space
from luthier.trial import Status, Trial


@dataclass(frozen=True)
class Table:
    """Trials as numbers, one row each.

    Attributes:
        rows: unit rows, shape (n, d).
        losses: shape (n, m), to be minimised; NaN where a trial has none, or failed.
        lack: what constraints lack, shape (n,); 0 where all hold.
        slacks: each constraint's metric minus its bound, shape (n, c): negative where it holds, NaN where unknown.
    """

    rows: Array
    losses: Array
    lack: Array
    slacks: Array

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ran(self) -> NDArray[np.bool_]:
        """Which trials have finite losses, shape (n,)."""
        return np.asarray(np.isfinite(self.losses).all(1))

    def take(self, kept: Any) -> Table:
        """The rows at an index."""
        return Table(self.rows[kept], self.losses[kept], self.lack[kept], self.slacks[kept])


class Memory:
    """Encoded trials of one space and one set of objectives, by the trial records themselves.

    Args:
        space: the space.
        objectives: what is wanted.
    """

    def __init__(self, space: Space, objectives: Objectives) -> None:
        self.space, self.objectives = space, objectives
        self.encoding = Encoding(space)
        self._known: dict[int, tuple[Trial, Array]] = {}
        self._last: tuple[list[Trial], Array] = ([], np.empty((0, self._width)))

    @property
    def _width(self) -> int:
        return len(self.encoding) + len(self.objectives.names) + 1 + len(self.objectives.constraints)

    def _read(self, trial: Trial) -> Array:
        known = self._known.get(trial.number)
        if known is None or known[0] is not trial:
            fits = all(n in self.space.parameters for n in trial.params)
            row = self.encoding.rows(trial.params) if fits else np.full(len(self.encoding), 0.5)
            losses = self.objectives.losses(trial.metrics)
            if trial.status is Status.FAILED:
                losses[:] = np.nan
            lack = self.objectives.violation(trial.metrics)
            line = np.concatenate([row, losses, [lack], [_slack(c, trial) for c in self.objectives.constraints]])
            known = self._known[trial.number] = (trial, line)
        return known[1]

    def table(self, trials: Sequence[Trial]) -> Table:
        """Trials as numbers; only those that are new since the last call are read."""
        listed = list(trials)
        old, lines = self._last
        if len(old) > len(listed) or listed[: len(old)] != old:
            old, lines = [], np.empty((0, self._width))
        if len(listed) > len(old):
            lines = np.vstack([lines, *(self._read(t) for t in listed[len(old) :])])
        self._last = (listed, lines)
        d, m = len(self.encoding), len(self.encoding) + len(self.objectives.names)
        return Table(lines[:, :d], lines[:, d:m], lines[:, m], lines[:, m + 1 :])

    def rows(self, trials: Sequence[Trial]) -> Array:
        """Unit rows, shape (n, d)."""
        return np.array([self._read(t)[: len(self.encoding)] for t in trials]).reshape(-1, len(self.encoding))


def ranking(losses: Array, lack: Array) -> NDArray[np.int64]:
    """Indices from best to worst, as :func:`luthier.pareto.order`; one loss is sorted without comparing all pairs."""
    if losses.shape[1] == 1:
        return np.lexsort((losses[:, 0], np.maximum(lack, 0.0)))
    return pareto.order(losses, lack)


def _slack(constraint: Constraint, trial: Trial) -> float:
    gap = trial.metrics.get(constraint.metric, math.nan) - constraint.bound
    return gap if constraint.operator.startswith("<") else -gap


def recall(memory: Memory | None, space: Space, objectives: Objectives) -> Memory:
    """The memory, or a new one where it is of another space or other objectives."""
    if memory is not None and memory.space is space and memory.objectives == objectives:
        return memory
    return Memory(space, objectives)
