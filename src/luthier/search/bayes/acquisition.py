"""Log expected improvement and its gradient, stable far from the data."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from luthier.pareto import Array
from luthier.search.bayes.fit import Process

_LOG_2PI = math.log(2.0 * math.pi)
_FAR = -1e7


def log_h(z: Array) -> Array:
    """log(phi(z) + z Phi(z)), without cancellation.

    Source:
        Ament et al., "Unexpected improvements to expected improvement for Bayesian optimization", 2023, equation 9.
    """
    out = np.empty_like(z)
    near = z > -1.0
    a = z[near]
    out[near] = np.log(np.exp(-0.5 * (a * a + _LOG_2PI)) + a * special.ndtr(a))
    b = np.maximum(z[~near], _FAR)
    ratio = math.sqrt(0.5 * math.pi) * special.erfcx(-b * math.sqrt(0.5)) * -b
    with np.errstate(divide="ignore"):
        rest = np.where(b > -1e4, np.log1p(-np.minimum(ratio, 1.0)), -2.0 * np.log(-b))
    out[~near] = -0.5 * (b * b + _LOG_2PI) + rest
    return out


def log_ei(mean: Array, deviation: Array, best: Array) -> tuple[Array, Array, Array]:
    """Log of the expected improvement below ``best``, and its slopes.

    EI = s h(z), z = (best - mean) / s, h(z) = phi(z) + z Phi(z).

    Args:
        mean: posterior means, shape (...).
        deviation: posterior standard deviations, positive, of that shape.
        best: what has to be improved on.

    Returns:
        log EI, d log EI / d mean, d log EI / d deviation.
    """
    z = (best - mean) / deviation
    base = log_h(z)
    by_mean = -np.exp(special.log_ndtr(z) - base) / deviation
    by_deviation = np.exp(-0.5 * (z * z + _LOG_2PI) - base) / deviation
    return base + np.log(deviation), by_mean, by_deviation


class Improvement:
    """Log expected improvement of a process, averaged over fantasies of its pending points.

    Args:
        process: one column of weights per fantasy.
        best: the incumbent of each fantasy, shape (s,).
    """

    def __init__(self, process: Process, best: Array) -> None:
        self.process, self.best = process, best

    def __call__(self, features: Array) -> Array:
        """Values at feature rows, shape (b,)."""
        mean, variance = self.process.predict(features)
        deviation = np.sqrt(variance)[:, None]
        each = log_h((self.best - mean) / deviation) + np.log(deviation)
        return _log_mean(each)[0]

    def with_gradient(self, features: Array) -> tuple[Array, Array]:
        """Values, shape (b,), and gradients, shape (b, f)."""
        mean, variance, d_mean, d_variance = self.process.predict_with_slopes(features)
        deviation = np.sqrt(variance)
        each, by_mean, by_deviation = log_ei(mean, deviation[:, None], self.best)
        value, share = _log_mean(each)
        gradient = ((share * by_mean)[..., None] * d_mean).sum(1)
        gradient += (share * by_deviation).sum(1)[:, None] * d_variance / (2.0 * deviation[:, None])
        return value, gradient


def _log_mean(logs: Array) -> tuple[Array, Array]:
    """log of the mean of exponentials by row, shape (b,), and each one's share of it, shape (b, s)."""
    if logs.shape[1] == 1:
        return logs[:, 0], np.ones_like(logs)
    peak = logs.max(1)
    each = np.exp(logs - peak[:, None])
    total = each.sum(1)
    return peak + np.log(total / logs.shape[1]), each / total[:, None]
