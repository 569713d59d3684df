"""A Gaussian process: hyper-parameters at the maximum of their posterior, then predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.linalg import lapack

from luthier.pareto import Array
from luthier.search._structures import Block
from luthier.search.bayes import kernel, optimise, structures

JITTER = 1e-8
_BLOCK = 32_768
_GAIN = 1e-2  # of log posterior probability: a smaller one ends the fit
_LENGTH_SPREAD2 = 0.5
_NOISE_MEAN, _NOISE_SPREAD2 = -6.0, 4.0


@dataclass(frozen=True)
class Data:
    """What a process is fitted to.

    Attributes:
        rows: features of :class:`luthier.search._encode.Encoding`, shape (n, d).
        targets: shape (n,), about zero mean and unit spread.
        categorical: which dimensions have no order, shape (d,).
        blocks: columns that make up a permutation or subset.
    """

    rows: Array
    targets: Array
    categorical: NDArray[np.bool_]
    blocks: tuple[Block, ...] = ()

    @property
    def d(self) -> int:
        """Number of dimensions: columns outside of structures, and views of these."""
        columns = len(kernel.single(self.categorical, self.blocks))
        return columns + sum(structures.count(block) for block in self.blocks)


def shape(theta: Array, d: int) -> kernel.Shape:
    """The kernel that theta describes, see :class:`Evidence`."""
    return kernel.Shape(np.exp(-2.0 * theta[:d]), float(special.expit(theta[d + 2])))


class Evidence:
    """Minus the log posterior of the hyper-parameters, and its gradient.

    theta = [log lengthscale of each of d dimensions, log signal variance, log noise variance, logit of the
    additive share]. Priors: lengthscales LogNormal(0, 0.7), in units of the parameter's range: every parameter matters
    until the data say otherwise (wider priors fit few trials by switching parameters off, measured to be worse from
    five dimensions on); signal LogNormal(0, 1); noise LogNormal(-6, 2); logit of the share Normal(0, 1.5).

    Args:
        data: shape (n, ...) as in :class:`Data`.

    Source:
        Rasmussen and Williams, 2006, equations 2.30 and 5.9.
    """

    def __init__(self, data: Data) -> None:
        self.data = data
        self.n, self.d = len(data.targets), data.d
        self.first, second = np.tril_indices(self.n, -1)
        self.second, self.place = second, second * self.n + self.first  # of the pair in memory, column by column
        self.gaps = kernel.squares(data.rows[self.first], data.rows[second], data.categorical, data.blocks)
        self.mean = np.concatenate([np.zeros(self.d), [0.0, _NOISE_MEAN, 0.0]])
        self.spread2 = np.concatenate([np.full(self.d, _LENGTH_SPREAD2), [1.0, _NOISE_SPREAD2, 2.25]])

    def bounds(self) -> tuple[Array, Array]:
        """Lowest and highest theta, each of shape (d + 3,)."""
        low = np.concatenate([np.full(self.d, -4.0), [-4.0, math.log(1e-6), -6.0]])
        high = np.concatenate([np.full(self.d, 7.0), [4.0, 1.0, 6.0]])
        return low, high

    def start(self, loud: bool = False) -> Array:
        """A theta that is never far off, shape (d + 3,); with much noise if that is wanted."""
        if loud:
            return np.concatenate([np.zeros(self.d), [math.log(0.5), math.log(0.3), 0.0]])
        lengths = np.full(self.d, math.log(0.5) + 0.5 * math.log(self.d))
        return np.concatenate([lengths, [0.0, math.log(1e-3), 0.0]])

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Value and gradient at theta, shape (d + 3,)."""
        n, d = self.n, self.d
        signal, noise = math.exp(theta[d]), math.exp(theta[d + 1])
        form = shape(theta, d)
        joint, slope, single = form(self.gaps)
        alone = single.sum(0) / d
        correlation = (1.0 - form.share) * joint + form.share * alone
        memory = np.zeros(n * n)
        memory[self.place] = signal * correlation
        memory[:: n + 1] = signal + noise + JITTER
        factor, failed = lapack.dpotrf(memory.reshape(n, n).T, lower=1, clean=0, overwrite_a=1)
        if failed:
            return 1e10, np.zeros_like(theta)
        weights = lapack.dpotrs(factor, self.data.targets, lower=1)[0]
        value = 0.5 * float(self.data.targets @ weights) + float(np.log(factor.diagonal()).sum())
        full = lapack.dpotri(factor, lower=1, overwrite_c=1)[0].T.reshape(-1)
        # twice d value / dK = K^-1 - a a^T, below the diagonal and on it
        off = full[self.place] - weights[self.first] * weights[self.second]
        diagonal = 0.5 * float((full[:: n + 1] - weights * weights).sum())
        gradient = np.empty_like(theta)
        by_gap = (1.0 - form.share) * (self.gaps @ (off * slope))
        single *= single
        single *= self.gaps
        by_gap += (0.5 * form.share / d) * (single @ off)
        gradient[:d] = 2.0 * signal * form.inverse * by_gap
        gradient[d] = signal * (float(off @ correlation) + diagonal)
        gradient[d + 1] = noise * diagonal
        gradient[d + 2] = signal * form.share * (1.0 - form.share) * float(off @ (alone - joint))
        away = theta - self.mean
        return value + 0.5 * float((away * away / self.spread2).sum()), gradient + away / self.spread2


def fit(data: Data, start: Array | None = None, steps: int = 40, noise: float | None = None) -> Array:
    """Theta at the maximum of its posterior, shape (d + 3,).

    Args:
        data: what to fit.
        start: where to begin; None: a start that is never far off.
        steps: at most so many iterations.
        noise: the largest noise variance; None: any.
    """
    evidence = Evidence(data)
    low, high = evidence.bounds()
    if noise is not None:
        high[data.d + 1] = math.log(noise)

    def batch(points: Array, rows: kernel.Index) -> tuple[Array, Array]:
        results = [evidence(p) for p in points]
        return np.array([r[0] for r in results]), np.array([r[1] for r in results])

    begin = evidence.start() if start is None else start
    found = optimise.minimise(batch, np.clip(begin, low, high)[None], low, high, steps, tolerance=_GAIN)
    return np.asarray(found[0])


class Process:
    """A Gaussian process given data and hyper-parameters.

    Args:
        data: shape (n, ...) as in :class:`Data`.
        theta: shape (d + 3,), see :class:`Evidence`.
    """

    def __init__(self, data: Data, theta: Array) -> None:
        self.data, self.theta = data, theta
        self.signal, self.noise = math.exp(theta[data.d]), math.exp(theta[data.d + 1])
        self.shape = shape(theta, data.d)
        self.columns = kernel.single(data.categorical, data.blocks)
        self.steep = np.flatnonzero(~data.categorical[self.columns])  # which of the dimensions are numbers
        self.scale = np.ones(len(data.categorical))
        self.scale[self.columns[self.steep]] = np.sqrt(0.5 * self.shape.inverse[self.steep])
        self.others = np.setdiff1d(np.arange(data.d), self.steep)
        self.factor = cholesky(self.cross(data.rows), self.noise + JITTER)
        lower = np.tril(lapack.dpotri(self.factor, lower=1)[0])
        self.inverse = lower + np.tril(lower, -1).T
        self.weights = lapack.dpotrs(self.factor, data.targets, lower=1)[0]

    def cross(self, rows: Array) -> Array:
        """Covariances with the data, shape (b, n)."""
        some = max(8, _BLOCK // max(self.data.rows.size, 1))  # few enough for the processor's cache
        parts = [self._cross(rows[i : i + some]) for i in range(0, len(rows), some)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _cross(self, rows: Array) -> Array:
        data = self.data
        a, b = rows * self.scale, data.rows * self.scale  # of numbers; cheaper than to scale what comes of all pairs
        halves = kernel.squares(a[:, None, :], b[None], data.categorical, data.blocks)
        for j in self.others:
            halves[j] *= 0.5 * self.shape.inverse[j]
        covariances = self.shape.value(halves)
        covariances *= self.signal
        return covariances

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Mean of the noise-free function and its variance, both of shape (b,)."""
        k = self.cross(rows)
        variance = self.signal - ((k @ self.inverse) * k).sum(1)
        return k @ self.weights, np.maximum(variance, 1e-12)

    def predict_with_slopes(self, rows: Array) -> tuple[Array, Array, Array, Array]:
        """As :meth:`predict`, with d mean / d rows and d variance / d rows, both of shape (b, d).

        Slopes mean nothing for categories.
        """
        columns = self.columns
        away = kernel.differences(rows[:, None, columns], self.data.rows[None][..., columns])
        gaps = kernel.squares(rows[:, None, :], self.data.rows[None], self.data.categorical, self.data.blocks)
        correlation, slopes = self.shape.with_slopes(gaps)
        k = self.signal * correlation
        slopes = slopes[: len(columns)]
        slopes *= away
        slopes *= -2.0 * self.signal  # now d k_i / d x_j, shape (columns, b, n)
        half = k @ self.inverse
        variance = np.maximum(self.signal - (half * k).sum(1), 1e-12)
        d_mean, d_variance = np.zeros(rows.shape), np.zeros(rows.shape)
        d_mean[:, columns] = (slopes @ self.weights).T
        slopes *= half
        d_variance[:, columns] = -2.0 * slopes.sum(2).T
        return k @ self.weights, variance, d_mean, d_variance


def cholesky(matrix: Array, ridge: float) -> Array:
    """Lower factor of ``matrix + ridge``; the ridge grows tenfold until there is one."""
    n = len(matrix)
    while True:
        ridged = matrix.copy()
        ridged.flat[:: n + 1] += ridge
        factor, failed = lapack.dpotrf(ridged, lower=1, clean=1)
        if not failed:
            return np.asarray(factor)
        ridge *= 10.0
