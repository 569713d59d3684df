"""The algorithm: a short initial design, then the most promising point under a Gaussian process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.pareto import Array
from luthier.search import _fresh, _memory
from luthier.search._encode import Encoding
from luthier.search.bayes import design, warp
from luthier.search.bayes.acquisition import Improvement
from luthier.search.bayes.fit import Data, Process, fit
from luthier.search.bayes.maximise import Effort, maximise
from luthier.space import Params, Space
from luthier.trial import Status, Trial

_FANTASIES = 8
_CAP = 256


@dataclass(frozen=True)
class _Learned:
    """The trials as the model sees them: unit rows, and losses without gaps."""

    rows: Array
    losses: Array


class Bayes:
    """A Gaussian process with log expected improvement: the fewest trials for a good result.

    Matern-5/2 over numbers, Hamming distance over categories, inactive parameters blanked. Failed trials count as the
    worst result seen, stopped ones as no better than the median. Several objectives by random weights.

    When it helps: trials that cost seconds or more, up to some hundred of them, any kind of space.
    When it hurts: trials that are cheaper than its own thinking (10 to 50 ms a proposal).

    Args:
        initial: how many trials come before the model; None: by the number of parameters.
        effort: how hard to look for the best proposal.

    Source:
        Jones, Schonlau and Welch, "Efficient global optimization of expensive black-box functions", 1998;
        Ament et al., "Unexpected improvements to expected improvement for Bayesian optimization", 2023.
    """

    def __init__(self, initial: int | None = None, effort: Effort | None = None) -> None:
        self.initial = initial
        self.effort = effort or Effort()
        self._memory: _memory.Memory | None = None
        self._thetas: dict[bytes, Array] = {}

    def ask(
        self,
        space: Space,
        objectives: Objectives,
        history: Sequence[Trial],
        pending: Sequence[Trial],
        n: int,
        key: Key,
    ) -> list[Params]:
        """See :class:`luthier.search.Algorithm`."""
        self._memory = _memory.recall(self._memory, space, objectives)
        waiting, found = list(pending), list[Params]()
        for i in range(n):
            params = self._propose(self._memory, history, waiting, key.for_trial(key.trial + i))
            if params is None:
                break
            found.append(params)
            waiting.append(Trial(key.trial + i, params))
        return found

    def _propose(
        self, memory: _memory.Memory, history: Sequence[Trial], pending: Sequence[Trial], key: Key
    ) -> Params | None:
        generator = key.generator("bayes")
        encoding, seen = memory.encoding, [*history, *pending]
        learned = _learn(memory, history, generator)
        first = self.initial if self.initial is not None else max(4, min(8, len(encoding) // 2 + 3))
        if len(learned.losses) < 2 or len(seen) < first:
            ranked = design.rows(encoding, first, len(seen), key)
        else:
            ranked = self._rank(memory, learned, pending, generator)
        return _fresh.first(encoding, ranked, seen, []) or _fresh.draw(memory.space, generator, seen, [])

    def _rank(
        self, memory: _memory.Memory, learned: _Learned, pending: Sequence[Trial], generator: np.random.Generator
    ) -> Array:
        encoding = memory.encoding
        kept = np.argsort(learned.losses, kind="stable")[:_CAP] if len(learned.losses) > _CAP else slice(None)
        rows, losses = learned.rows[kept], learned.losses[kept]
        data = _data(encoding, rows, losses)
        process = Process(data, self._theta(encoding, learned, data))
        if pending:
            waiting = encoding.features(memory.rows(pending))
            process = fantasise(process, waiting)
        best = process.predict(process.data.rows)[0].min(0)
        leaders = rows[np.argsort(losses, kind="stable")[:5]]
        return maximise(encoding, Improvement(process, best), leaders, generator, self.effort)

    def _theta(self, encoding: Encoding, learned: _Learned, data: Data) -> Array:
        """Hyper-parameters: fitted to the first trials of the history, as many as the last stage says.

        So they depend on nothing but the history, and most asks find them remembered.
        """
        count = len(learned.losses)
        size = _stage(count)
        name = learned.rows[:size].tobytes() + learned.losses[:size].tobytes()
        if name not in self._thetas:
            self._forget()
            part = data if size == count else _data(encoding, learned.rows[:size], learned.losses[:size])
            self._thetas[name] = fit(part)
        return self._thetas[name]

    def _forget(self) -> None:
        while len(self._thetas) > 8:
            del self._thetas[next(iter(self._thetas))]


def _learn(memory: _memory.Memory, history: Sequence[Trial], generator: np.random.Generator) -> _Learned:
    """One loss per trial that taught something."""
    table = memory.table(history)
    ran = table.ran
    if not ran.any():
        return _Learned(np.empty((0, len(memory.encoding))), np.empty(0))
    single = np.full(len(table), np.nan)
    single[ran] = _scalarise(table.losses[ran], generator)
    broken = ran & (table.lack > 0)
    good = ran & ~broken
    base = single[good] if good.any() else single[ran]
    span = float(base.max() - base.min()) or 1.0
    excess = np.minimum(table.lack, 1e300)
    single[broken] = base.max() + span * excess[broken] / max(float(excess[broken].max(initial=0.0)), 1e-300)
    stopped = np.array([t.status is Status.STOPPED for t in history], dtype=bool) & ran
    single[stopped] = np.maximum(single[stopped], np.median(single[ran]))
    single[~ran] = np.max(single[ran])
    return _Learned(table.rows, single)


def _data(encoding: Encoding, rows: Array, losses: Array) -> Data:
    if len(losses) > _CAP:
        kept = np.sort(np.argsort(losses, kind="stable")[:_CAP])
        rows, losses = rows[kept], losses[kept]
    return Data(encoding.features(rows), warp.outputs(losses), encoding.categorical)


def _stage(count: int) -> int:
    """How many trials the hyper-parameters are fitted to: all at first, then every so often afresh."""
    every = 1 if count < 24 else max(2, count // 16)
    return count - count % every


def _scalarise(losses: Array, generator: np.random.Generator) -> Array:
    """One loss from several, by an augmented Chebyshev norm with random weights.

    Source:
        Knowles, "ParEGO", 2006, equation 2.
    """
    if losses.shape[1] == 1:
        return losses[:, 0]
    weights = generator.dirichlet(np.ones(losses.shape[1]))
    low, high = losses.min(0), losses.max(0)
    scaled = weights * (losses - low) / np.where(high > low, high - low, 1.0)
    return np.asarray(scaled.max(1) + 0.05 * scaled.sum(1))


def fantasise(process: Process, waiting: Array) -> Process:
    """The process with pending points added, in several versions of what they may give.

    The versions are fixed normal quantiles, shuffled per point, so that nothing is drawn.

    Args:
        process: of finished trials.
        waiting: features of pending points, shape (p, f).
    """
    mean, variance = process.predict(waiting)
    levels = np.linspace(-1.5, 1.5, _FANTASIES)
    shifts = np.stack([np.roll(levels[:: (-1) ** i], 3 * i) for i in range(len(waiting))])
    values = mean + shifts * np.sqrt(variance)[:, None]
    old = process.data
    targets = np.vstack([np.repeat(old.targets[:, None], _FANTASIES, 1), values])
    grown = Data(np.vstack([old.rows, waiting]), targets, old.categorical)
    return Process(grown, process.theta)
