"""A Gaussian process: hyper-parameters at the maximum of their posterior, then predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from luthier.pareto import Array
from luthier.search.bayes import kernel, optimise

JITTER = 1e-8
_LENGTH_SPREAD2 = 3.0
_SIGNAL_SPREAD2 = 1.0
_NOISE_MEAN, _NOISE_SPREAD2 = -6.0, 4.0


@dataclass(frozen=True)
class Data:
    """What a process is fitted to.

    Attributes:
        features: shape (n, f), see :class:`luthier.search._encode.Encoding`.
        targets: shape (n,), about zero mean and unit spread.
        owner: dimension of each feature, shape (f,).
        d: number of dimensions.
    """

    features: Array
    targets: Array
    owner: kernel.Index
    d: int


class Evidence:
    """Minus the log posterior of the hyper-parameters, and its gradient.

    theta = [log lengthscale of each of d dimensions, log signal variance, log noise variance].
    Priors: lengthscales LogNormal(sqrt(2) + log(d) / 2, sqrt(3)), which keeps the model's complexity the same
    whatever the dimension; signal LogNormal(0, 1); noise LogNormal(-6, 2).

    Args:
        data: shape (n, ...) as in :class:`Data`.

    Source:
        Rasmussen and Williams, 2006, equations 2.30 and 5.9;
        Hvarfner, Hellsten and Nardi, "Vanilla Bayesian optimization performs great in high dimensions", 2024.
    """

    def __init__(self, data: Data) -> None:
        self.data = data
        self.n, self.d = len(data.targets), data.d
        self.squares = kernel.pairs(data.features, data.owner, data.d)
        self.low = np.tril_indices(self.n, -1)
        self.length_mean = math.sqrt(2.0) + 0.5 * math.log(data.d)

    def bounds(self) -> tuple[Array, Array]:
        """Lowest and highest theta, each of shape (d + 2,)."""
        low = np.r_[np.full(self.d, -4.0), -4.0, math.log(1e-6)]
        high = np.r_[np.full(self.d, 7.0), 4.0, 1.0]
        return low, high

    def start(self) -> Array:
        """A theta that is never far off, shape (d + 2,)."""
        lengths = np.full(self.d, math.log(0.5) + 0.5 * math.log(self.d))
        return np.concatenate([lengths, [0.0, math.log(1e-3)]])

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Value and gradient at theta, shape (d + 2,)."""
        n, d = self.n, self.d
        inverse = np.exp(-2.0 * theta[:d])
        signal, noise = math.exp(theta[d]), math.exp(theta[d + 1])
        correlation, slope = kernel.matern(self.squares @ inverse)
        matrix = np.empty((n, n))
        matrix[self.low] = signal * correlation
        matrix.flat[:: n + 1] = signal + noise + JITTER
        factor, failed = lapack.dpotrf(matrix, lower=1, clean=0)
        if failed:
            return 1e10, np.zeros_like(theta)
        weights = lapack.dpotrs(factor, self.data.targets, lower=1)[0]
        value = 0.5 * float(self.data.targets @ weights) + float(np.log(factor.diagonal()).sum())
        full = lapack.dpotri(factor, lower=1)[0]
        # M = (K^-1 - a a^T) / 2, by lower triangle: d value / dK
        off = full[self.low] - weights[self.low[0]] * weights[self.low[1]]
        diagonal = 0.5 * (full.diagonal() - weights * weights)
        gradient = np.empty_like(theta)
        gradient[:d] = 2.0 * signal * inverse * ((off * slope) @ self.squares)
        gradient[d] = signal * (float(off @ correlation) + float(diagonal.sum()))
        gradient[d + 1] = noise * float(diagonal.sum())
        prior, pull = self._prior(theta)
        return value + prior, gradient + pull

    def _prior(self, theta: Array) -> tuple[float, Array]:
        mean = np.r_[np.full(self.d, self.length_mean), 0.0, _NOISE_MEAN]
        spread2 = np.r_[np.full(self.d, _LENGTH_SPREAD2), _SIGNAL_SPREAD2, _NOISE_SPREAD2]
        off = theta - mean
        return 0.5 * float((off * off / spread2).sum()), off / spread2


def fit(data: Data, start: Array | None = None, steps: int = 40) -> Array:
    """Theta at the maximum of its posterior, shape (d + 2,).

    Args:
        data: what to fit.
        start: where to begin; None: a start that is never far off.
        steps: at most so many iterations.
    """
    evidence = Evidence(data)
    low, high = evidence.bounds()

    def batch(points: Array, rows: kernel.Index) -> tuple[Array, Array]:
        results = [evidence(p) for p in points]
        return np.array([r[0] for r in results]), np.array([r[1] for r in results])

    begin = evidence.start() if start is None else start
    found = optimise.minimise(batch, np.clip(begin, low, high)[None], low, high, steps, tolerance=1e-3)
    return np.asarray(found[0])


class Process:
    """A Gaussian process given data and hyper-parameters.

    Args:
        data: shape (n, ...) as in :class:`Data`; targets may have several columns, shape (n, s): same
            points, several sets of values (fantasies).
        theta: shape (d + 2,), see :class:`Evidence`.
    """

    def __init__(self, data: Data, theta: Array) -> None:
        self.data, self.theta = data, theta
        self.signal, self.noise = math.exp(theta[data.d]), math.exp(theta[data.d + 1])
        self.scales = np.exp(-theta[: data.d])[data.owner]
        self.points = data.features * self.scales
        correlation, _ = kernel.matern(kernel.between(self.points, self.points))
        self.factor = _cholesky(self.signal * correlation, self.noise + JITTER)
        self.inverse = lapack.dpotri(self.factor, lower=1)[0]
        self.inverse = np.tril(self.inverse) + np.tril(self.inverse, -1).T
        columns = data.targets if data.targets.ndim == 2 else data.targets[:, None]
        self.weights = lapack.dpotrs(self.factor, columns, lower=1)[0]

    def cross(self, features: Array) -> tuple[Array, Array]:
        """Covariances with the data, and their slopes by squared distance, both of shape (b, n)."""
        correlation, slope = kernel.matern(kernel.between(features * self.scales, self.points))
        return self.signal * correlation, self.signal * slope

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Mean of the noise-free function, shape (b, s), and its variance, shape (b,)."""
        k, _ = self.cross(features)
        variance = self.signal - ((k @ self.inverse) * k).sum(1)
        return k @ self.weights, np.maximum(variance, 1e-12)

    def predict_with_slopes(self, features: Array) -> tuple[Array, Array, Array, Array]:
        """As :meth:`predict`, with d mean / d features, shape (b, s, f), and d variance / d features, (b, f)."""
        k, slope = self.cross(features)
        half = k @ self.inverse
        variance = np.maximum(self.signal - (half * k).sum(1), 1e-12)
        scaled = features * self.scales
        # d k_i / d x = -2 slope_i (x - x_i) / l^2
        by_mean = slope[:, None, :] * self.weights.T[None]
        d_mean = -2.0 * (by_mean.sum(2)[..., None] * scaled[:, None, :] - by_mean @ self.points) * self.scales
        by_variance = slope * half
        d_variance = 4.0 * (by_variance.sum(1)[:, None] * scaled - by_variance @ self.points) * self.scales
        return k @ self.weights, variance, d_mean, d_variance


def _cholesky(matrix: Array, ridge: float) -> Array:
    """Lower factor of ``matrix + ridge``; the ridge grows tenfold until there is one."""
    n = len(matrix)
    while True:
        ridged = matrix.copy()
        ridged.flat[:: n + 1] += ridge
        factor, failed = lapack.dpotrf(ridged, lower=1, clean=1)
        if not failed:
            return np.asarray(factor)
        ridge *= 10.0
