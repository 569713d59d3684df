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


def log_ei(mean: Array, deviation: Array, best: Array | float) -> tuple[Array, Array, Array]:
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
    """Log expected improvement of a process.

    Args:
        process: what the trials say.
        best: what has to be improved on.
    """

    def __init__(self, process: Process, best: float) -> None:
        self.process, self.best = process, best

    def __call__(self, rows: Array) -> Array:
        """Values at feature rows, shape (b,)."""
        mean, variance = self.process.predict(rows)
        deviation = np.sqrt(variance)
        return np.asarray(log_h((self.best - mean) / deviation) + np.log(deviation))

    def with_gradient(self, rows: Array) -> tuple[Array, Array]:
        """Values, shape (b,), and gradients, shape (b, f)."""
        mean, variance, d_mean, d_variance = self.process.predict_with_slopes(rows)
        deviation = np.sqrt(variance)
        value, by_mean, by_deviation = log_ei(mean, deviation, self.best)
        gradient = by_mean[:, None] * d_mean + (by_deviation / (2.0 * deviation))[:, None] * d_variance
        return value, gradient


class Hypervolume:
    """Log of the expected gain in hypervolume of two objectives, exactly.

    With the front sorted by its first loss the plane below it is a row of strips (a_i, b_i) x (-inf, h_i), and

    EHVI = sum_i [EI_1(b_i) - EI_1(a_i)] EI_2(h_i), where EI(c) = s h((c - mean) / s).

    Args:
        processes: one per objective, independent.
        front: non-dominated losses in the processes' units, shape (k, 2).
        reference: the worst corner, shape (2,).

    Source:
        the strips of Emmerich et al., "Hypervolume-based expected improvement", 2011, summed by rows; expected
        improvement in place of their psi function.
    """

    def __init__(self, processes: tuple[Process, Process], front: Array, reference: Array) -> None:
        self.processes = processes
        inside = front[(front < reference).all(1)]
        ordered = inside[np.argsort(inside[:, 0], kind="stable")]
        self.left = np.concatenate([[-np.inf], ordered[:, 0]])
        self.right = np.concatenate([ordered[:, 0], [reference[0]]])
        self.height = np.concatenate([[reference[1]], ordered[:, 1]])

    def __call__(self, rows: Array) -> Array:
        """Values at feature rows, shape (b,)."""
        (m1, v1), (m2, v2) = (p.predict(rows) for p in self.processes)
        return self._strips(m1[:, None], np.sqrt(v1)[:, None], m2[:, None], np.sqrt(v2)[:, None])[0]

    def with_gradient(self, rows: Array) -> tuple[Array, Array]:
        """Values, shape (b,), and gradients, shape (b, d)."""
        m1, v1, dm1, dv1 = self.processes[0].predict_with_slopes(rows)
        m2, v2, dm2, dv2 = self.processes[1].predict_with_slopes(rows)
        s1, s2 = np.sqrt(v1)[:, None], np.sqrt(v2)[:, None]
        value, by = self._strips(m1[:, None], s1, m2[:, None], s2)
        gradient = by[0][:, None] * dm1 + by[1][:, None] * dv1 / (2.0 * s1)
        gradient += by[2][:, None] * dm2 + by[3][:, None] * dv2 / (2.0 * s2)
        return value, gradient

    def _strips(self, m1: Array, s1: Array, m2: Array, s2: Array) -> tuple[Array, list[Array]]:
        """Log EHVI, shape (b,), and its slopes by mean 1, deviation 1, mean 2, deviation 2."""
        right, right_m, right_s = log_ei(m1, s1, self.right)
        up, up_m, up_s = log_ei(m2, s2, self.height)
        left, left_m, left_s = log_ei(m1, s1, np.where(np.isfinite(self.left), self.left, m1 - 1e3 * s1))
        part = np.where(np.isfinite(self.left), np.exp(np.minimum(left - right, -1e-12)), 0.0)
        kept = -np.expm1(np.log(np.maximum(part, 1e-300)))
        width = right + np.log(kept)
        total = width + up
        peak = total.max(1, keepdims=True)
        share = np.exp(total - peak)
        value = peak[:, 0] + np.log(share.sum(1))
        share /= share.sum(1, keepdims=True)
        slopes = [
            share * (right_m - part * left_m) / kept,
            share * (right_s - part * left_s) / kept,
            share * up_m,
            share * up_s,
        ]
        return value, [each.sum(1) for each in slopes]


class Feasible:
    """An acquisition plus the log probability that bounds hold.

    Args:
        base: what is wanted; None: only that the bounds hold.
        bounds: processes and the value that each must stay below.

    Source:
        Gardner et al., "Bayesian optimization with inequality constraints", 2014, in logarithms.
    """

    def __init__(self, base: Improvement | Hypervolume | None, bounds: list[tuple[Process, float]]) -> None:
        self.base, self.bounds = base, bounds

    def __call__(self, rows: Array) -> Array:
        """Values at feature rows, shape (b,)."""
        value = np.zeros(len(rows)) if self.base is None else self.base(rows)
        for process, limit in self.bounds:
            mean, variance = process.predict(rows)
            value = value + special.log_ndtr((limit - mean) / np.sqrt(variance + process.noise))
        return value

    def with_gradient(self, rows: Array) -> tuple[Array, Array]:
        """Values, shape (b,), and gradients, shape (b, d)."""
        none = (np.zeros(len(rows)), np.zeros(rows.shape))
        value, gradient = none if self.base is None else self.base.with_gradient(rows)
        for process, limit in self.bounds:
            mean, variance, d_mean, d_variance = process.predict_with_slopes(rows)
            deviation = np.sqrt(variance + process.noise)
            z = (limit - mean) / deviation
            log_share = special.log_ndtr(z)
            by_z = np.exp(-0.5 * (z * z + _LOG_2PI) - log_share)
            d_z = -d_mean / deviation[:, None] - (z / (2.0 * deviation**2))[:, None] * d_variance
            value, gradient = value + log_share, gradient + by_z[:, None] * d_z
        return value, gradient
