"""A quasi-Newton method with bounds for many starts at once: one call of the function serves all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from luthier.pareto import Array

Index = NDArray[np.int64]

Batch = Callable[[Array, Index], tuple[Array, Array]]

_ARMIJO = 1e-4
_BACKTRACKS = 8


def minimise(function: Batch, starts: Array, low: Array, high: Array, steps: int, tolerance: float = 1e-6) -> Array:
    """Projected BFGS, batched over starts.

    Args:
        function: (points of shape (b, d), their rows' indices of shape (b,)) -> (values (b,), gradients (b, d)).
        starts: shape (m, d), inside the bounds.
        low: lower bounds, shape (d,).
        high: upper bounds, shape (d,).
        steps: at most so many iterations.
        tolerance: a start is done when an iteration gains less than this.

    Returns:
        the best point of each start, shape (m, d); never worse than the start.

    Source:
        Nocedal and Wright, "Numerical optimization", 2006, equation 6.17; bounds after
        Bertsekas, "Projected Newton methods for optimization problems with simple constraints", 1982.
    """
    x = starts.copy()
    m, d = x.shape
    live = np.arange(m, dtype=np.int64)
    value, slope = function(x, live)
    inverse = np.repeat(np.eye(d)[None], m, 0)
    fresh = np.ones(m, dtype=bool)
    for _ in range(steps):
        direction = _direction(x[live], slope[live], inverse[live], low, high)
        if fresh[live].any():
            length = np.sqrt((direction**2).sum(1))
            direction[fresh[live]] *= (0.1 * np.sqrt(d) / np.maximum(length, 1e-12)).clip(max=1.0)[fresh[live], None]
        at, new, rise = _search(function, x, value, slope, live, direction, (low, high))
        moved, turned = at - x[live], rise - slope[live]
        gain = value[live] - new
        _update(inverse, live, moved, turned, fresh)
        x[live], value[live], slope[live] = at, new, rise
        live = live[gain > tolerance]
        if len(live) == 0:
            break
    return x


def _direction(x: Array, slope: Array, inverse: Array, low: Array, high: Array) -> Array:
    """Quasi-Newton step of the free coordinates; steepest descent where that would not descend."""
    held = ((x <= low) & (slope > 0)) | ((x >= high) & (slope < 0))
    downhill = np.where(held, 0.0, -slope)
    step = np.where(held, 0.0, np.einsum("bij,bj->bi", inverse, downhill))
    bad = (step * slope).sum(1) > -1e-12 * (slope**2).sum(1)
    step[bad] = downhill[bad]
    return np.asarray(step)


def _search(
    function: Batch,
    x: Array,
    value: Array,
    slope: Array,
    live: Index,
    direction: Array,
    bounds: tuple[Array, Array],
) -> tuple[Array, Array, Array]:
    """Halves (rather, quarters) each start's step until it descends enough; else stays."""
    at, new, rise = x[live].copy(), value[live].copy(), slope[live].copy()
    length = np.ones(len(live))
    todo = np.arange(len(live))
    for _ in range(_BACKTRACKS):
        tried = np.clip(x[live[todo]] + length[todo, None] * direction[todo], *bounds)
        f, g = function(tried, live[todo])
        wanted = value[live[todo]] + _ARMIJO * (slope[live[todo]] * (tried - x[live[todo]])).sum(1)
        good = f <= wanted
        hit = todo[good]
        at[hit], new[hit], rise[hit] = tried[good], f[good], g[good]
        todo = todo[~good]
        if len(todo) == 0:
            break
        length[todo] *= 0.25
    return at, new, rise


def _update(inverse: Array, live: Index, s: Array, y: Array, fresh: NDArray[np.bool_]) -> None:
    """BFGS update of the inverse Hessians where the curvature is positive."""
    curve = (s * y).sum(1)
    ok = curve > 1e-12 * np.sqrt((s * s).sum(1) * (y * y).sum(1)) + 1e-300
    rows, s, y, curve = live[ok], s[ok], y[ok], curve[ok]
    if len(rows) == 0:
        return
    first = fresh[rows]
    if first.any():
        inverse[rows[first]] *= (curve[first] / (y[first] ** 2).sum(1))[:, None, None]
        fresh[rows] = False
    h = inverse[rows]
    hy = np.einsum("bij,bj->bi", h, y)
    scale = (1.0 + (y * hy).sum(1) / curve) / curve
    cross = (s[:, :, None] * hy[:, None, :] + hy[:, :, None] * s[:, None, :]) / curve[:, None, None]
    inverse[rows] = h + scale[:, None, None] * s[:, :, None] * s[:, None, :] - cross
