"""Functional ANOVA: a Gaussian process that is a sum of orthogonal functions of one and of two parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luthier.parameters import Structure
from luthier.pareto import Array
from luthier.search._encode import Encoding
from luthier.search._structures import Block, places
from luthier.search._threads import OneThread
from luthier.search.bayes import optimise
from luthier.search.bayes.fit import cholesky
from luthier.search.bayes.kernel import squares
from luthier.space import Choice, Params, Space

_DEGREE = 8
_DRAWS = 4096
_STRUCTURES, _FUNCTIONS = 768, 256  # draws of a structure, and functions of it, at most
_FLAT = 1e-12
_OFFSET = 10.0  # variance of the constant; the results have variance 1
_PRIOR_STRENGTH, _PRIOR_PAIR, _PRIOR_NOISE = (-1.0, 9.0), (-2.0, 4.0), (-4.0, 9.0)  # mean and variance of logarithms


@dataclass(frozen=True)
class Term:
    """Functions of one parameter, orthonormal and of mean zero under uniform draws, at the trials.

    Attributes:
        values: shape (n, b); 0 where the parameter is inactive.
        weights: prior variance of each function's coefficient, summing to 1, shape (b,).
    """

    values: Array
    weights: Array

    @property
    def gram(self) -> Array:
        """Prior covariance of the term at the trials, shape (n, n)."""
        return np.asarray((self.values * self.weights) @ self.values.T)


def cover(space: Space, params: Sequence[Params], most: int) -> NDArray[np.int64]:
    """Indices of at most so many combinations that cover where the trials are: each next one farthest from all before.

    A search that has converged has most of its trials in one place, which says little about the space.

    Source:
        Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985.
    """
    if len(params) <= most:
        return np.arange(len(params))
    encoding = Encoding(space)
    features = encoding.features(np.array([encoding.rows(p) for p in params]))[:, None]
    kept, gap = [0], np.full(len(params), np.inf)
    while len(kept) < most:
        newest = features[kept[-1]][None]
        gap = np.minimum(
            gap, squares(features, newest, encoding.categorical, tuple(encoding.blocks)).sum(0).reshape(-1)
        )
        kept.append(int(gap.argmax()))
    return np.unique(kept)


def decompose(
    space: Space, params: Sequence[Params], values: Array
) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
    """Shares of variance of each parameter alone and of each pair.

    Args:
        space: where the trials come from.
        params: combinations, none twice, n of them.
        values: their results, mean 0 and variance 1, shape (n,).

    Returns:
        parameter to share, and pair of parameters to share, of what is explained of trials left out.
    """
    encoding = Encoding(space)
    rows, active = encoding.snap(np.array([encoding.rows(p) for p in params]))
    with OneThread()():
        process = _Process(_Frame(space, encoding, rows, active), values)
        main, pairs, explained = process.shares()
    total = sum(main) + sum(pairs.values())
    scale = explained / total if total > 0 else 0.0
    names = space.names
    apart = {(names[a], names[b]): scale * v for (a, b), v in pairs.items()}
    return {n: scale * v for n, v in zip(names, main, strict=True)}, apart


class _Frame:
    """The terms of a space at some trials, and how often each is active under uniform draws."""

    def __init__(self, space: Space, encoding: Encoding, rows: Array, active: NDArray[np.bool_]) -> None:
        generator = np.random.Generator(np.random.Philox(key=0))
        drawn, there = encoding.snap(generator.random((_DRAWS, len(encoding))))
        first = [space.slices[n].start for n in space.names]
        self.names = space.names
        here = there[:, first].astype(float)
        self.together = here.T @ here / len(here)  # shape (parameters, parameters)
        self.blocks = {block.place.start: block for block in encoding.blocks}
        self.terms = [
            self._term(space, name, _grid(space, name, drawn, there), rows, active[:, space.slices[name].start])
            for name in space.names
        ]
        self.kin = self._kin(space, rows, active)

    def _term(self, space: Space, name: str, grid: Array, rows: Array, active: NDArray[np.bool_]) -> Term:
        place = space.slices[name]
        block = self.blocks.get(place.start)
        if block is not None:
            return _structure_term(block, grid, rows[:, place], active)
        return _term(grid, rows[:, place], active, not isinstance(space[name], Choice))

    def _kin(self, space: Space, rows: Array, active: NDArray[np.bool_]) -> dict[tuple[int, int], Term | None]:
        """Pairs of a parameter and its ancestor; the functions of a parent among the values that make it active."""
        index = {n: i for i, n in enumerate(self.names)}
        out: dict[tuple[int, int], Term | None] = {}
        for child in self.names:
            for ancestor in _ancestors(space, child):
                pair = (min(index[child], index[ancestor]), max(index[child], index[ancestor]))
                wanted = space.conditions[child].get(ancestor, ())
                out[pair] = None
                if len(wanted) > 1:
                    grid = np.array([space[ancestor].to_unit(v) for v in wanted], dtype=float).reshape(len(wanted), -1)
                    here = active[:, space.slices[child].start]
                    out[pair] = self._term(space, ancestor, grid, rows, here)
        return out


def _ancestors(space: Space, name: str) -> set[str]:
    found: set[str] = set()
    for parent in space.conditions[name]:
        found |= {parent} | _ancestors(space, parent)
    return found


def _grid(space: Space, name: str, drawn: Array, there: NDArray[np.bool_]) -> Array:
    """Values that stand for uniform draws where a parameter is active, shape (m, columns).

    Args:
        space: the space.
        name: of the parameter.
        drawn: uniform draws, snapped, shape (n, d).
        there: what is active in them, shape (n, d).
    """
    place, size = space.slices[name], space[name].size
    active = there[:, place.start]
    some = drawn[active if active.any() else slice(None), place]
    if isinstance(space[name], Structure):
        return some[:_STRUCTURES]
    if size <= 256:
        return np.unique(some, axis=0) if size <= 64 else some[:1024]
    return ((np.arange(256) + 0.5) / 256)[:, None]


def _term(grid: Array, rows: Array, active: NDArray[np.bool_], ordered: bool) -> Term:
    """The functions at some rows: polynomials of an order, contrasts of categories.

    Args:
        grid: equally likely values, shape (m, 1).
        rows: the trials' values, shape (n, 1).
        active: where the functions count, shape (n,).
        ordered: whether the values lie on a line.
    """
    levels = np.unique(grid)
    both = np.concatenate([grid, rows])
    if ordered:
        functions = np.polynomial.legendre.legvander(2 * both[:, 0] - 1, min(_DEGREE, len(levels) - 1))
    else:
        functions = np.column_stack([np.ones(len(both)), np.abs(both - levels) < 1e-9])
    made = functions @ _orthonormal(functions[: len(grid)])
    values = made[len(grid) :, 1:] * active[:, None]
    raw = (1.0 + np.arange(values.shape[1])) ** (-2.0 if ordered else 0.0)
    return Term(values, np.asarray(raw / max(float(raw.sum()), 1e-300), dtype=float))


def _structure_term(block: Block, grid: Array, rows: Array, active: NDArray[np.bool_]) -> Term:
    """The functions of an order or a selection: eigenfunctions of a kernel under uniform draws.

    The kernel is exp(s) - 1 with the mean covariance s of all views (who comes first, places, neighbours, who is at
    each place; membership, size): functions linear in these count most, their products less. The constant is taken out.

    Args:
        block: the structure's columns.
        grid: uniform draws, shape (m, columns).
        rows: the trials' values, shape (n, columns).
        active: where the functions count, shape (n,).

    Source:
        eigenfunctions from draws: Williams and Seeger, "Using the Nystrom method to speed up kernel machines", 2001.
    """
    m, both = len(grid), np.concatenate([grid, rows])
    alike = [view @ view[:m].T for view in block.views(both)]
    if block.ordered:
        at = places(both)
        alike.append(sum((at[:, None, i] == at[None, :m, i] for i in range(block.k)), np.zeros((len(both), m))))
    centred = [_centred(each) for each in alike]
    spreads = [float(each[:m].trace()) / m for each in centred]
    covariances = [each / spread for each, spread in zip(centred, spreads, strict=True) if spread > _FLAT]
    if not covariances:
        return Term(np.zeros((len(rows), 0)), np.zeros(0))
    kernel = _centred(np.expm1(np.mean(covariances, axis=0)))
    weights, vectors = np.linalg.eigh((kernel[:m] + kernel[:m].T) / 2)
    kept = np.flatnonzero(weights > 1e-6 * weights[-1])[-_FUNCTIONS:]
    values = kernel[m:] @ vectors[:, kept] * (math.sqrt(m) / weights[kept])
    return Term(values * active[:, None], weights[kept] / weights[kept].sum())


def _centred(kernel: Array) -> Array:
    """A kernel between rows and draws, the first rows, without the mean over the draws, shape (n, m)."""
    m = kernel.shape[1]
    return np.asarray(kernel - kernel.mean(1, keepdims=True) - kernel[:m].mean(0) + kernel[:m].mean())


def _orthonormal(functions: Array) -> Array:
    """Combinations of columns that are orthonormal over the rows, the first constant; dependent columns drop out.

    Args:
        functions: shape (m, p), the first column constant.

    Returns:
        shape (p, q) with q <= p.
    """
    m, p = functions.shape
    kept: list[Array] = []
    for j in range(p):
        mixed = np.zeros(p)
        mixed[j] = 1.0
        column = functions[:, j].copy()
        for _ in range(2):  # twice is enough, Giraud et al., 2005
            for other in kept:
                share = float(column @ (functions @ other)) / m
                mixed, column = mixed - share * other, column - share * (functions @ other)
        norm = math.sqrt(float(column @ column) / m)
        if norm > 1e-6:
            kept.append(mixed / norm)
    return np.stack(kept, 1)


class _Process:
    """The sum of all terms, fitted: theta = [log strength of each parameter, log strength of pairs, log noise]."""

    def __init__(self, frame: _Frame, values: Array) -> None:
        self.frame, self.values = frame, values
        self.d = len(frame.terms)
        self.grams = [t.gram for t in frame.terms]
        self.kin = {pair: None if t is None else t.gram for pair, t in frame.kin.items()}
        prior = [_PRIOR_STRENGTH] * self.d + [_PRIOR_PAIR, _PRIOR_NOISE]
        self.mean, self.spread2 = np.array([p[0] for p in prior]), np.array([p[1] for p in prior])

    def covariance(self, theta: Array) -> tuple[Array, Array, list[Array]]:
        """Without noise; also what pairs add to it, and the sum of main effects times each, all of shape (n, n)."""
        strength, pair = np.exp(theta[: self.d]), math.exp(theta[self.d])
        scaled = [s * g for s, g in zip(strength, self.grams, strict=True)]
        total = np.sum(scaled, axis=0)
        with_each = [g * (total - g) for g in scaled]  # sum over all partners of a parameter
        for (a, b), gram in self.kin.items():
            plain = scaled[a] * scaled[b]
            child = self._child(a, b)
            other = np.zeros_like(plain) if gram is None else strength[a] * strength[b] * gram * self.grams[child]
            with_each[a] = with_each[a] + other - plain
            with_each[b] = with_each[b] + other - plain
        pairs = 0.5 * pair * np.sum(with_each, axis=0)
        return _OFFSET + total + pairs, pairs, with_each

    def _child(self, a: int, b: int) -> int:
        together = self.frame.together
        return a if together[a, a] <= together[b, b] else b

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Minus the log posterior of theta, and its gradient; Rasmussen and Williams, 2006, equations 2.30 and 5.9."""
        noise, pair = math.exp(theta[-1]), math.exp(theta[self.d])
        matrix, pairs, with_each = self.covariance(theta)
        factor = cholesky(matrix, noise)
        half = np.linalg.inv(factor)
        inverse = half.T @ half
        weights = inverse @ self.values
        slope = 0.5 * (inverse - np.outer(weights, weights))
        away = theta - self.mean
        gradient = away / self.spread2
        for j, gram in enumerate(self.grams):
            gradient[j] += float((slope * (math.exp(theta[j]) * gram + pair * with_each[j])).sum())
        gradient[self.d] += float((slope * pairs).sum())
        gradient[self.d + 1] += noise * float(np.trace(slope))
        value = 0.5 * float(self.values @ weights) + float(np.log(factor.diagonal()).sum())
        return value + 0.5 * float((away * away / self.spread2).sum()), gradient

    def fit(self) -> Array:
        """Theta at the maximum of its posterior, shape (d + 2,)."""

        def batch(points: Array, _: NDArray[np.int64]) -> tuple[Array, Array]:
            results = [self(p) for p in points]
            return np.array([r[0] for r in results]), np.array([r[1] for r in results])

        low = np.concatenate([np.full(self.d, -12.0), [-12.0, math.log(1e-6)]])
        high = np.concatenate([np.full(self.d, 5.0), [5.0, 1.0]])
        return np.asarray(optimise.minimise(batch, self.mean[None].copy(), low, high, 60, tolerance=1e-3)[0])

    def shares(self) -> tuple[list[float], dict[tuple[int, int], float], float]:
        """Variance of each main effect, of each pair, and the share of variance predicted for trials left out."""
        theta = self.fit()
        strength, pair = np.exp(theta[: self.d]), math.exp(theta[self.d])
        half = np.linalg.inv(cholesky(self.covariance(theta)[0], math.exp(theta[-1])))
        inverse = half.T @ half
        weights = inverse @ self.values
        expected = self.values - weights / inverse.diagonal()  # of each from all others
        missed = self.values - np.clip(expected, self.values.min(), self.values.max())
        explained = max(0.0, 1.0 - float((missed**2).mean() / self.values.var()))
        terms, together = self.frame.terms, self.frame.together
        main = [
            float(together[j, j] * ((strength[j] * t.weights * (t.values.T @ weights)) ** 2).sum())
            for j, t in enumerate(terms)
        ]
        pairs = {}
        for a in range(self.d):
            for b in range(a + 1, self.d):
                left, right = self._partners(a, b)
                if left is not None and right is not None and together[a, b] > 0:
                    inner = (left.values * weights[:, None]).T @ right.values
                    each = pair * strength[a] * strength[b] * np.outer(left.weights, right.weights) * inner
                    pairs[a, b] = float(together[a, b] * (each**2).sum())
        return main, pairs, explained

    def _partners(self, a: int, b: int) -> tuple[Term | None, Term | None]:
        terms = self.frame.terms
        if (a, b) not in self.frame.kin:
            return terms[a], terms[b]
        return self.frame.kin[a, b], terms[self._child(a, b)]
