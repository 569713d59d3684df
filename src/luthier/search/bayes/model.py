"""What the trials teach: one Gaussian process per objective, and one per bound that must hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from luthier import pareto
from luthier.pareto import Array
from luthier.search._encode import Encoding
from luthier.search._memory import Memory, Table
from luthier.search.bayes import warp
from luthier.search.bayes.acquisition import Feasible, Hypervolume, Improvement
from luthier.search.bayes.fit import Data, Process, fit
from luthier.trial import Status, Trial

CAP = 256
_FITTED = 128
_LEADING = 64
_REMEMBERED = 64
_FEWEST = 8
_BAD = 0.5
_FAILED = 128
QUIET = 1e-3  # noise variance of exact results, whose own variance is 1
_CLEAR = 0.03  # a clear improvement, in standard deviations of the results
_SETTLED = 12
_LOUD = 0.4  # noise variance of results that nobody should take as exact, whose own variance is 1


@dataclass(frozen=True)
class Learned:
    """Finished trials as the models see them.

    Attributes:
        table: all of them.
        ran: which have losses, shape (n,).
        losses: of those that ran, shape (r, m); of stopped ones no better than the median.
    """

    table: Table
    ran: NDArray[np.bool_]
    losses: Array

    @property
    def rows(self) -> Array:
        """Unit rows of the trials that ran, shape (r, d)."""
        return np.asarray(self.table.rows[self.ran])

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Which of the trials that ran keep every constraint, shape (r,)."""
        return np.asarray(self.table.lack[self.ran] <= 0)


def learn(memory: Memory, history: Sequence[Trial]) -> Learned:
    """Reads the history."""
    table = memory.table(history)
    ran = table.ran
    losses = table.losses[ran].copy()
    stopped = np.array([t.status is Status.STOPPED for t in history], dtype=bool)[ran]
    if stopped.any() and len(losses):
        losses[stopped] = np.maximum(losses[stopped], np.median(losses, axis=0))
    return Learned(table, ran, losses)


class Models:
    """Fits processes, and remembers hyper-parameters by the data they were fitted to.

    Args:
        encoding: the space's.
        refits: how many times more rarely than usual to fit anew.
    """

    def __init__(self, encoding: Encoding, refits: int = 1) -> None:
        self.encoding, self.refits = encoding, refits
        self.calm: warp.Transform = warp.outputs if encoding.categorical.any() else warp.linear
        self._thetas: dict[bytes, Array] = {}

    def objective(self, rows: Array, losses: Array, exact: bool = False, linear: bool = False) -> Process:
        """The process of one objective over unit rows, shape (n, d), and losses, shape (n,).

        Args:
            rows: shape (n, d).
            losses: shape (n,).
            exact: takes the results as almost free of noise, and bends them.
            linear: keeps the losses' proportions, and so those of the areas that two of them span; without either
                they are kept where there are numbers only, bent where options that are far worse may skew them.
        """
        transform = warp.linear if linear else warp.outputs if exact else self.calm
        return self._process(rows, losses, transform, QUIET if exact else None)

    def noise(self, rows: Array, losses: Array) -> float:
        """The noise variance that fits best, where the results' own variance is 1."""
        return math.exp(self._theta(rows, losses, self.calm)[-2])

    def bound(self, rows: Array, slacks: Array) -> Process:
        """The process of a quantity that must stay below 0; far values pulled in, 0 kept."""
        return self._process(rows, slacks, warp.about_zero)

    def _process(self, rows: Array, values: Array, transform: warp.Transform, noise: float | None = None) -> Process:
        return Process(self._data(rows, values, transform), self._theta(rows, values, transform, noise))

    def _theta(self, rows: Array, values: Array, transform: warp.Transform, noise: float | None = None) -> Array:
        size = _stage(len(values), self.refits)
        name = rows[:size].tobytes() + values[:size].tobytes() + f"{noise!r} {transform.__name__}".encode()
        if name not in self._thetas:
            part = self._data(rows[:size], values[:size], transform, _FITTED)
            start = None if noise is None else self._before(rows[:size], values[:size], transform, noise)
            found = fit(part, start, noise=noise)
            while len(self._thetas) >= _REMEMBERED:
                del self._thetas[next(iter(self._thetas))]
            self._thetas[name] = found
        return self._thetas[name]

    def _before(self, rows: Array, values: Array, transform: warp.Transform, noise: float) -> Array | None:
        """Where a fit to results taken as exact begins: at that to the first of them, the next lower power of two.

        It takes fewer steps then, and ends higher. From powers of two it is soon made again where nothing but the
        history is known, as always where losses change with each trial: those of stopped trials, weighings of three
        objectives. Where noise is free a fit that begins so clings to what fewer results said of it.
        """
        size = 1 << max(len(rows) - 1, 1).bit_length() - 1
        return self._theta(rows[:size], values[:size], transform, noise) if size >= _FEWEST else None

    def _data(self, rows: Array, values: Array, transform: warp.Transform, most: int = CAP) -> Data:
        """The data as they are; where there are more than ``most``, the best half of it and the newest half."""
        if len(values) > most:
            best = np.argsort(values, kind="stable")[: most // 2]
            kept = np.union1d(best, np.arange(len(values) - most // 2, len(values)))
            rows, values = rows[kept], values[kept]
        encoding = self.encoding
        return Data(encoding.features(rows), transform(values), encoding.categorical, tuple(encoding.blocks))


def _stage(count: int, refits: int) -> int:
    """How many trials the hyper-parameters are fitted to: all at first, then every so often afresh."""
    every = 1 if count < 24 else max(2, count // 12) * refits
    return count - count % every if count >= every else count


def acquisition(
    models: Models, learned: Learned, waiting: Array, generator: np.random.Generator, bold: bool = False
) -> Improvement | Hypervolume | Feasible:
    """What a proposal is chosen by.

    Expected improvement; for two objectives the expected gain in hypervolume; for more, improvement of a random
    weighting. Times the probability that constraints hold and that the trial does not fail.

    Args:
        models: fits and remembers.
        learned: what the trials taught.
        waiting: features of pending trials, shape (p, d).
        generator: draws the weighting.
        bold: takes results as exact and asks for more than a little; for one objective, from 12 trials on.
    """
    bounds = _bounds(models, learned)
    if not learned.feasible.any():
        return Feasible(None, bounds)
    m = learned.losses.shape[1]
    base = _two(models, learned, waiting) if m == 2 else _one(models, learned, waiting, generator, bold)
    return Feasible(base, bounds) if bounds else base


def _one(models: Models, learned: Learned, waiting: Array, generator: np.random.Generator, bold: bool) -> Improvement:
    """Improvement as the trials' model sees it; every other trial is bold.

    A rough function looks like a smooth one with noise, and then the same place is tried again and again for a little
    more. The bold view believes every result and wants a clear improvement, so that it looks elsewhere; either view
    alone does worse than the two in turn. Where results are clearly noisy nothing is gained by believing them. Among
    numbers only the bold view bends the results: two views that err in different ways miss less than two alike.
    """
    single = scalarise(learned.losses, generator)
    bold = bold and len(single) >= _SETTLED
    if bold and learned.losses.shape[1] == 1:  # by the fit for the proposal before, which need not be made again
        bold = models.noise(learned.rows[:-1], single[:-1]) < _LOUD
    process = _with_failures(models, learned, single, bold)
    if len(waiting):
        process = believe(process, waiting)
    good = np.flatnonzero(learned.feasible)
    leading = good[np.argsort(single[good], kind="stable")[:_LEADING]]
    known = np.vstack([models.encoding.features(learned.rows[leading]), waiting])
    return Improvement(process, float(process.predict(known)[0].min()) - (_CLEAR if bold else 0.0))


def _two(models: Models, learned: Learned, waiting: Array) -> Hypervolume:
    processes = [_with_failures(models, learned, learned.losses[:, j], linear=True) for j in range(2)]
    if len(waiting):
        processes = [believe(p, waiting) for p in processes]
    known = np.vstack([models.encoding.features(learned.rows[learned.feasible]), waiting])
    means = np.stack([p.predict(known)[0] for p in processes], 1)
    front = means[pareto.front(means)]
    worst = means.max(0)  # of all trials: seen from its own corner, a front of one point has no ends to look for
    reference = worst + 0.1 * np.maximum(worst - means.min(0), 0.1)
    return Hypervolume((processes[0], processes[1]), front, reference)


def _with_failures(
    models: Models, learned: Learned, losses: Array, exact: bool = False, linear: bool = False
) -> Process:
    """The process of the trials that ran, with failures standing where it expects them, or at a bad result.

    Their probability alone does not keep the search away: where nothing is ever seen, hope never dies. And a bad result
    beside good ones would spoil the hyper-parameters, so failures have no part in these.
    """
    process = models.objective(learned.rows, losses, exact, linear)
    failed = models.encoding.features(learned.table.rows[~learned.ran][-_FAILED:])
    if len(failed) == 0:
        return process
    bad = float(np.quantile(process.data.targets, _BAD))
    return _grown(process, failed, np.maximum(process.predict(failed)[0], bad))


def _bounds(models: Models, learned: Learned) -> list[tuple[Process, float]]:
    """A process for each constraint, and one for failures where there were any; each must stay below 0."""
    out = []
    table = learned.table
    for slack in table.slacks.T:
        known = np.isfinite(slack)
        if known.any():
            out.append((models.bound(table.rows[known], slack[known]), 0.0))
    if not learned.ran.all():
        out.append((models.bound(table.rows, np.where(learned.ran, -1.0, 1.0)), 0.0))
    return out


def scalarise(losses: Array, generator: np.random.Generator) -> Array:
    """One loss from several, by an augmented Chebyshev norm with random weights, shape (n,).

    Source:
        Knowles, "ParEGO", 2006, equation 2.
    """
    if losses.shape[1] == 1:
        return losses[:, 0]
    weights = generator.dirichlet(np.ones(losses.shape[1]))
    low, high = losses.min(0), losses.max(0)
    half = np.maximum(high / 2 - low / 2, 1e-300)
    scaled = weights * (losses / 2 - low / 2) / half
    return np.asarray(scaled.max(1) + 0.05 * scaled.sum(1))


def believe(process: Process, waiting: Array) -> Process:
    """The process with pending points added at their mean: what is expected there changes nothing, doubt shrinks.

    Args:
        process: of finished trials.
        waiting: features of pending points, shape (p, d).
    """
    return _grown(process, waiting, process.predict(waiting)[0])


def _grown(process: Process, waiting: Array, values: Array) -> Process:
    old = process.data
    targets = np.concatenate([old.targets, values])
    return Process(replace(old, rows=np.vstack([old.rows, waiting]), targets=targets), process.theta)
