"""Dominance, fronts, crowding and hypervolume. All losses are minimised; arrays are (points, objectives)."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_MANY = 500  # points above which a table of all pairs costs more than a sweep


def dominates(losses: Array) -> NDArray[np.bool_]:
    """Entry (i, j) says whether point i dominates point j: nowhere worse, somewhere better.

    Args:
        losses: shape (n, m).

    Returns:
        shape (n, n).
    """
    no_worse = (losses[:, None, :] <= losses[None, :, :]).all(-1)
    better = (losses[:, None, :] < losses[None, :, :]).any(-1)
    return np.asarray(no_worse & better)


def front(losses: Array) -> NDArray[np.bool_]:
    """Marks the points that no other point dominates; of equal points all are marked.

    Example:
        >>> front(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])).tolist()
        [True, True, False]
    """
    if losses.ndim == 2 and losses.shape[1] == 1:
        return np.asarray(losses[:, 0] == losses[:, 0].min(initial=np.inf))
    if len(losses) > _MANY:
        return _swept(losses)
    return np.logical_not(np.asarray(dominates(losses).any(axis=0)))


def _swept(losses: Array) -> NDArray[np.bool_]:
    """The same without the n x n table: in lexicographic order nobody is dominated by a later point."""
    out = np.zeros(len(losses), dtype=bool)
    kept = np.empty_like(losses)
    size = 0
    for i in np.lexsort(losses.T[::-1]):
        rivals = kept[:size]
        if not ((rivals <= losses[i]).all(1) & (rivals < losses[i]).any(1)).any():
            out[i] = True
            kept[size] = losses[i]
            size += 1
    return out


def ranks(losses: Array) -> NDArray[np.int64]:
    """Non-dominated rank: 0 on the front, 1 on the front of the rest, and so on.

    Source:
        Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002.
    """
    if losses.ndim == 2 and losses.shape[1] == 1:
        return np.asarray(np.unique(losses[:, 0], return_inverse=True)[1], dtype=np.int64)
    if losses.ndim == 2 and losses.shape[1] == 2 and not np.isnan(losses).any():
        return _ranks_of_two(losses)
    out = np.full(len(losses), -1, dtype=np.int64)
    rank = 0
    while (out < 0).any():
        left = np.flatnonzero(out < 0)
        out[left[front(losses[left])]] = rank
        rank += 1
    return out


def _ranks_of_two(losses: Array) -> NDArray[np.int64]:
    """The same for two objectives in one sweep: of each front so far only the least second loss can dominate.

    Source:
        Jensen, "Reducing the run-time complexity of multiobjective EAs", 2003, section III.
    """
    points, place = np.unique(losses, axis=0, return_inverse=True)  # by the first loss, then by the second
    least: list[float] = []  # of each front, rising
    out = np.empty(len(points), dtype=np.int64)
    for i, second in enumerate(points[:, 1].tolist()):
        out[i] = bisect_right(least, second)
        least[out[i] : out[i] + 1] = [second]
    return out[place.reshape(-1)]


def crowding(losses: Array) -> Array:
    """Crowding distance within one front: infinite at the ends, larger where neighbours are far.

    Args:
        losses: shape (n, m).

    Returns:
        shape (n,), without unit (each objective is scaled by its range).

    Source:
        Deb et al., 2002, section III-B.
    """
    n, m = losses.shape
    out = np.zeros(n)
    for j in range(m):
        order = np.argsort(losses[:, j], kind="stable")
        column = losses[order, j]
        span = column[-1] - column[0] if n else 0.0
        out[order[[0, -1]]] = np.inf
        if span > 0:
            out[order[1:-1]] += (column[2:] - column[:-2]) / span
    return out


def order(losses: Array, violations: Array | None = None) -> NDArray[np.int64]:
    """Indices from best to worst: feasible first, then by rank, then by crowding.

    Args:
        losses: shape (n, m).
        violations: shape (n,), 0 where every constraint holds, else how much is lacking.

    Example:
        >>> order(np.array([[2.0], [1.0], [0.0]]), np.array([0.0, 0.0, 0.5])).tolist()
        [1, 0, 2]
    """
    n = len(losses)
    lack = np.zeros(n) if violations is None else np.asarray(violations, dtype=float)
    rank = np.zeros(n, dtype=np.int64)
    crowd = np.zeros(n)
    feasible = np.flatnonzero(lack <= 0)
    rank[feasible] = ranks(losses[feasible])
    several = losses.ndim == 2 and losses.shape[1] > 1  # with one objective a front is a tie
    for r in np.unique(rank[feasible]) if several else ():
        members = feasible[rank[feasible] == r]
        crowd[members] = crowding(losses[members])
    return np.lexsort((-crowd, rank, np.maximum(lack, 0.0)))


def hypervolume(losses: Array, reference: Array) -> float:
    """Volume that the points dominate, up to a reference point.

    Args:
        losses: shape (n, m).
        reference: shape (m,), worse than the points that count.

    Returns:
        the volume; points beyond the reference add nothing.

    Example:
        >>> hypervolume(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([3.0, 3.0]))
        3.0

    Source:
        two objectives by a sweep; more by inclusion of exclusive volumes (While, Bradstreet and
        Barone, "A fast way of calculating exact hypervolumes", 2012).
    """
    inside = losses[(losses < reference).all(1)]
    if len(inside) == 0:
        return 0.0
    points = np.unique(inside[front(inside)], axis=0)
    if points.shape[1] == 1:
        return float(reference[0] - points[0, 0])
    if points.shape[1] == 2:
        ends = np.append(points[1:, 0], reference[0])
        return float(((ends - points[:, 0]) * (reference[1] - points[:, 1])).sum())
    return _exclusive_sum(points, reference)


def _exclusive_sum(points: Array, reference: Array) -> float:
    total = 0.0
    for i, point in enumerate(points):
        limited = np.maximum(points[i + 1 :], point)
        total += float(np.prod(reference - point)) - hypervolume(limited, reference)
    return total
