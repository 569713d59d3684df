"""A quasi-Newton method with bounds for many starts at once: one call of the function serves all of them."""

from __future__ import annotations

import math
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
    best = starts.copy()
    m, d = best.shape
    live = np.arange(m, dtype=np.int64)
    x = best  # here and below: of the live ones only
    value, slope = function(x, live)
    inverse, fresh = np.repeat(np.eye(d)[None], m, 0), np.ones(m, dtype=bool)
    for _ in range(steps):
        direction = _direction(x, slope, inverse, low, high)
        if fresh.any():
            length = np.sqrt((direction * direction).sum(1))
            shrink = np.minimum(0.1 * math.sqrt(d) / np.maximum(length, 1e-12), 1.0)
            direction *= np.where(fresh, shrink, 1.0)[:, None]
        at, new, rise = _search(function, live, (x, value, slope), direction, (low, high))
        _update(inverse, at - x, rise - slope, fresh)
        best[live] = at
        going = value - new > tolerance
        x, value, slope = at, new, rise
        if not going.all():
            if not going.any():
                break
            live, x, value, slope = live[going], x[going], value[going], slope[going]
            inverse, fresh = inverse[going], fresh[going]
    return best


def _direction(x: Array, slope: Array, inverse: Array, low: Array, high: Array) -> Array:
    """Quasi-Newton step of the free coordinates; steepest descent where that would not descend."""
    held = ((x <= low) & (slope > 0)) | ((x >= high) & (slope < 0))
    downhill = np.where(held, 0.0, -slope)
    step = np.matmul(inverse, downhill[:, :, None])[:, :, 0]
    step[held] = 0.0
    bad = (step * slope).sum(1) > -1e-12 * (slope * slope).sum(1)
    if bad.any():
        step[bad] = downhill[bad]
    return np.asarray(step)


def _search(
    function: Batch,
    live: Index,
    here: tuple[Array, Array, Array],
    direction: Array,
    bounds: tuple[Array, Array],
) -> tuple[Array, Array, Array]:
    """Halves (rather, quarters) each start's step until it descends enough; else stays."""
    x, value, slope = here
    low, high = bounds
    at = np.minimum(np.maximum(x + direction, low), high)
    new, rise = function(at, live)
    todo = np.flatnonzero(~(new <= value + _ARMIJO * (slope * (at - x)).sum(1)))
    length = 1.0
    for _ in range(_BACKTRACKS - 1):
        if len(todo) == 0:
            return at, new, rise
        length *= 0.25
        at[todo] = np.minimum(np.maximum(x[todo] + length * direction[todo], low), high)
        new[todo], rise[todo] = function(at[todo], live[todo])
        wanted = value[todo] + _ARMIJO * (slope[todo] * (at[todo] - x[todo])).sum(1)
        todo = todo[~(new[todo] <= wanted)]
    at[todo], new[todo], rise[todo] = x[todo], value[todo], slope[todo]
    return at, new, rise


def _update(inverse: Array, s: Array, y: Array, fresh: NDArray[np.bool_]) -> None:
    """BFGS update of the inverse Hessians where the curvature is positive; the first one scales them."""
    curve = (s * y).sum(1)
    turned = (y * y).sum(1)
    ok = curve > 1e-12 * np.sqrt((s * s).sum(1) * turned) + 1e-300
    if not ok.any():
        return
    rows = slice(None) if ok.all() else ok
    s, y, curve, h = s[rows], y[rows], curve[rows], inverse[rows]
    if fresh.any():
        h = h * np.where(fresh[rows], curve / turned[rows], 1.0)[:, None, None]
        fresh[rows] = False
    hy = np.matmul(h, y[:, :, None])[:, :, 0]
    scale = (1.0 + (y * hy).sum(1) / curve) / curve
    cross = s[:, :, None] * (hy / curve[:, None])[:, None, :]
    inverse[rows] = h + (scale[:, None] * s)[:, :, None] * s[:, None, :] - cross - cross.transpose(0, 2, 1)
