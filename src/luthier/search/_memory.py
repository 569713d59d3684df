"""What the algorithms remember of trials between two calls: encoded rows and losses. Never changes an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier import pareto
from luthier.objectives import Constraint, Objectives
from luthier.pareto import Array
from luthier.search import _fresh
from luthier.search._belief import Belief
from luthier.search._encode import Encoding
from luthier.search._stopped import Curves
from luthier.space import Space
from luthier.trial import Status, Trial

_TELLING = 64  # trials that tell whether a belief holds; all pairs of them are looked at


@dataclass(frozen=True)
class Table:
    """Trials as numbers, one row each.

    Attributes:
        rows: unit rows, shape (n, d).
        losses: shape (n, m), to be minimised; NaN where a trial has none, or failed; of stopped trials, as what
            constraints lack, see :meth:`luthier.search._stopped.Curves.settled`.
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
    """Encoded trials of one space and one set of objectives, each read once however often they are asked for.

    Args:
        space: the space.
        objectives: what is wanted.
    """

    def __init__(self, space: Space, objectives: Objectives) -> None:
        self.space, self.objectives = space, objectives
        self.encoding = Encoding(space)
        self.belief = Belief(space, self.encoding)
        self._tried = _fresh.Tried()
        self._curves = Curves(self._numbers)
        self._trials: list[Trial] = []
        self._stopped: list[int] = []  # which of them were stopped
        self._width = len(self.encoding) + len(objectives.names) + 1 + len(objectives.constraints)
        self._lines = np.empty((16, self._width))

    def _read(self, trial: Trial) -> Array:
        fits = all(n in self.space.parameters for n in trial.params)
        row = self.encoding.rows(trial.params) if fits else np.full(len(self.encoding), 0.5)
        losses = self.objectives.losses(trial.metrics)
        if trial.status is Status.FAILED:
            losses[:] = np.nan
        return np.concatenate([row, [self.objectives.violation(trial.metrics)], losses, self._slacks(trial.metrics)])

    def _slacks(self, metrics: Mapping[str, float]) -> Array:
        return np.array([_slack(c, metrics) for c in self.objectives.constraints])

    def _numbers(self, metrics: Mapping[str, float]) -> Array:
        return np.concatenate([self.objectives.losses(metrics), self._slacks(metrics)])

    def table(self, trials: Sequence[Trial]) -> Table:
        """Trials as numbers; only those behind the first that differs from the last call are read."""
        listed = list(trials)
        same = _shared(self._trials, listed)
        if len(listed) > len(self._lines):
            grown = np.empty((2 * len(listed), self._width))
            grown[:same] = self._lines[:same]
            self._lines = grown
        elif same < len(self._trials):
            self._lines = self._lines.copy()  # tables that were given away keep what they show
        for i in range(same, len(listed)):
            self._lines[i] = self._read(listed[i])
        fresh = (i for i in range(same, len(listed)) if listed[i].status is Status.STOPPED)
        self._stopped = [*(i for i in self._stopped if i < same), *fresh]
        self._trials = listed
        lines = self._lines[: len(listed)]
        d, m = len(self.encoding), len(self.objectives.names)
        rows, lack, plain = lines[:, :d], lines[:, d], lines[:, d + 1 :]
        numbers = self._curves.settled(listed, self._stopped, plain)
        if numbers is not plain and numbers.shape[1] > m:
            more = np.maximum(numbers[:, m:], 0.0) - np.maximum(plain[:, m:], 0.0)
            lack = lack + np.nansum(more, axis=1)
        return Table(rows, numbers[:, :m], lack, numbers[:, m:])

    def rows(self, trials: Sequence[Trial]) -> Array:
        """Unit rows, shape (n, d)."""
        return np.array([self._read(t)[: len(self.encoding)] for t in trials]).reshape(-1, len(self.encoding))

    def taken(self, history: Sequence[Trial], pending: Sequence[Trial]) -> _fresh.Taken:
        """The combinations that must not be proposed again."""
        return self._tried.taken(history, pending)

    def taken_in(self, history: Sequence[Trial], pending: Sequence[Trial]) -> _fresh.Taken:
        """The same, for those that only draw: where draws do not repeat, nothing is read."""
        return self._tried.taken_in(self.space, history, pending)

    def trust(self, history: Sequence[Trial]) -> float:
        """How far the first results bear the priors out, see :meth:`luthier.search._belief.Belief.trust`."""
        return self.belief.trust(*first_places(self.table(history))) if self.belief.priors else 1.0


def _shared(old: list[Trial], new: list[Trial]) -> int:
    """How many trials two lists have in common at their beginning."""
    if len(old) <= len(new) and new[: len(old)] == old:
        return len(old)
    return next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a is not b), min(len(old), len(new)))


def first_places(table: Table) -> tuple[Array, Array]:
    """Unit rows of those of the first 64 trials that ran, shape (r, d), and their places, 0 the best, shape (r,)."""
    first = table.take(slice(_TELLING))
    told = first.take(first.ran)
    return told.rows, np.argsort(ranking(told.losses, told.lack)).astype(float)


def leaders(table: Table, count: int) -> NDArray[np.int64]:
    """Indices of the best ``count`` trials of a table without failures, best first; the rest is not sorted."""
    losses, lack = table.losses, table.lack
    if losses.shape[1] > 1 or count >= len(losses) or (lack > 0).any():
        return ranking(losses, lack)[:count]
    limit = np.partition(losses[:, 0], count - 1)[count - 1]
    near = np.flatnonzero(losses[:, 0] <= limit)
    return np.asarray(near[np.argsort(losses[near, 0], kind="stable")][:count])


def ranking(losses: Array, lack: Array) -> NDArray[np.int64]:
    """Indices from best to worst, as :func:`luthier.pareto.order`; one loss is sorted without comparing all pairs."""
    if losses.shape[1] == 1:
        return np.lexsort((losses[:, 0], np.maximum(lack, 0.0)))
    return pareto.order(losses, lack)


def _slack(constraint: Constraint, metrics: Mapping[str, float]) -> float:
    gap = metrics.get(constraint.metric, math.nan) - constraint.bound
    return gap if constraint.operator.startswith("<") else -gap


def recall(memory: Memory | None, space: Space, objectives: Objectives) -> Memory:
    """The memory, or a new one where it is of another space or other objectives."""
    if memory is not None and memory.space is space and memory.objectives == objectives:
        return memory
    return Memory(space, objectives)
