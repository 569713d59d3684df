"""Finds the proposal of highest acquisition value in a mixed, conditional space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from luthier.pareto import Array
from luthier.search import _checks
from luthier.search._encode import Encoding
from luthier.search._moves import mutate
from luthier.search.bayes import optimise, structures

_TOP = 1.0 - 2.0**-53
_GAIN = 1e-2  # of log acquisition: a smaller one ends the climb


class Acquisition(Protocol):
    """A function of feature rows, to be maximised."""

    def __call__(self, rows: Array) -> Array:
        """Values, shape (b,)."""

    def with_gradient(self, rows: Array) -> tuple[Array, Array]:
        """Values, shape (b,), and gradients, shape (b, f)."""
        ...


@dataclass(frozen=True)
class Effort:
    """How hard to look.

    Attributes:
        uniform: candidates drawn uniformly.
        near: candidates near the leaders.
        starts: how many of the best candidates are refined.
        steps: gradient steps per round.
        rounds: rounds of gradient steps and discrete sweeps.
        refits: how many times more rarely than usual the model's hyper-parameters are fitted anew.
    """

    uniform: int = 512
    near: int = 256
    starts: int = 6
    steps: int = 12
    rounds: int = 2
    refits: int = 1

    def __post_init__(self) -> None:
        _checks.whole(self, 1, uniform=self.uniform, starts=self.starts, refits=self.refits)
        _checks.whole(self, 0, near=self.near, steps=self.steps, rounds=self.rounds)

    def after(self, trials: int) -> Effort:
        """Fewer candidates where each costs more, so that the price stays about the same from 100 trials on."""
        share = min(1.0, max(0.25, 100.0 / max(trials, 1)))
        return replace(self, uniform=max(1, int(self.uniform * share)), near=int(self.near * share))


def maximise(
    encoding: Encoding, acquisition: Acquisition, leaders: Array, generator: np.random.Generator, effort: Effort
) -> Array:
    """Unit rows from best to worst: refined ones, then plain candidates.

    Args:
        encoding: the space's.
        acquisition: what is maximised.
        leaders: unit rows of the best trials, best first, shape (k, d).
        generator: the stream to draw from.
        effort: how hard to look.

    Returns:
        shape (b, d).
    """

    def value(unit: Array) -> Array:
        return acquisition(encoding.features(unit))

    unit = candidates(encoding, leaders, generator, effort)
    score = value(unit)
    order = np.argsort(-score, kind="stable")
    best, kept = unit[order[: effort.starts]].copy(), score[order[: effort.starts]]
    smooth = np.flatnonzero(~encoding.categorical)
    moved = np.arange(len(best))  # only what a sweep has moved is worth another climb
    for _ in range(effort.rounds):
        now, reached = best[moved], kept[moved]
        if len(smooth):
            now = _climb(encoding, acquisition, now, smooth, effort.steps)
            reached = value(now)
        better = reached
        if encoding.listed.any():
            now, better = _sweep(encoding, value, now, better, generator)
        if encoding.blocks:
            now, better = structures.climb(encoding, value, now, better, generator)
        best[moved], kept[moved] = now, better
        if not encoding.blocks:  # whose neighbours are drawn anew each time
            moved = moved[better > reached]
        if len(moved) == 0:
            break
    ranked = np.argsort(-kept, kind="stable")
    return np.vstack([best[ranked], unit[order]])


def candidates(encoding: Encoding, leaders: Array, generator: np.random.Generator, effort: Effort) -> Array:
    """Uniform draws, and the leaders with some coordinates moved, shape (uniform + near, d)."""
    uniform = generator.random((effort.uniform, len(encoding)))
    if len(leaders) == 0:
        return uniform
    parents = leaders[generator.integers(0, len(leaders), effort.near)]
    scale = 10.0 ** generator.uniform(-2.5, -0.5, (effort.near, 1))
    return np.vstack([uniform, mutate(encoding, parents, scale, generator)])


def _climb(encoding: Encoding, acquisition: Acquisition, starts: Array, smooth: optimise.Index, steps: int) -> Array:
    """Gradient ascent over numbers, whole ones as if they were real; categories stay."""
    fixed = encoding.features(starts)
    active = encoding.snap(starts)[1][:, smooth]

    def loss(x: Array, rows: optimise.Index) -> tuple[Array, Array]:
        features = fixed[rows]
        features[:, smooth] = np.where(active[rows], x, features[:, smooth])
        value, slope = acquisition.with_gradient(features)
        return -value, -slope[:, smooth] * active[rows]

    low, high = np.zeros(len(smooth)), np.full(len(smooth), _TOP)
    out = starts.copy()
    out[:, smooth] = optimise.minimise(loss, starts[:, smooth], low, high, steps, tolerance=_GAIN)
    return out


def _sweep(
    encoding: Encoding,
    value: Callable[[Array], Array],
    best: Array,
    kept: Array,
    generator: np.random.Generator,
    most: int = 12,
) -> tuple[Array, Array]:
    """Tries other values of each listed dimension, all starts at once; keeps what is better."""
    best, kept = best.copy(), kept.copy()
    for j in generator.permutation(np.flatnonzero(encoding.listed)):
        centres = encoding.dimensions[j].centres
        if centres is None or len(centres) < 2:
            continue
        tried = np.stack([_alternatives(centres, float(u), most, generator) for u in best[:, j]])
        unit = np.repeat(best, tried.shape[1], 0)
        unit[:, j] = tried.ravel()
        score = value(unit).reshape(tried.shape)
        pick = score.argmax(1)
        rows = np.flatnonzero(score[np.arange(len(best)), pick] > kept)
        best[rows, j] = tried[rows, pick[rows]]
        kept[rows] = score[rows, pick[rows]]
    return best, kept


def _alternatives(centres: Array, now: float, most: int, generator: np.random.Generator) -> Array:
    """All values where they are few; else neighbours of the present one and some others."""
    k = len(centres)
    if k <= most:
        return centres
    at = int(np.abs(centres - now).argmin())
    near = np.clip(at + np.array([-3, -2, -1, 1, 2, 3]), 0, k - 1)
    return np.asarray(centres[np.concatenate([near, generator.integers(0, k, most - 6)])])
