"""The shares whose removal, one group at a time, hurts least for what it saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from luthier.allocate import Request
from luthier.allocate._map import SensitivityMap, measure_map
from luthier.allocate.knapsack import Knapsack
from luthier.errors import UsageError

__all__ = ["METHOD", "Sensitivity", "SensitivityMap", "measure_map"]

GRID = np.linspace(0.0, 0.99, 199)


class Sensitivity:
    """The shares whose removal, one group at a time, hurts least for what it saves.

    A map of what the removal of a quarter, half ... of each group does is measured first, by evaluation alone. To a
    budget, widths then go step by step, the least rise for the cost saved first, as in ``knapsack``. To a ratio, every
    group loses the share that is worth most at a common price of what it saves, and the price is found by bisection.
    Groups of different ratios (by pattern) have prices of their own.

    Formula:
        r_g = argmin of s_g(r) - k m log(1 - r) - price c_g r; s_g the map, m its mean at a half, c_g what the group
        saves of the budget's cost (of MACs, where there is none); the logarithm keeps any width from being cut to
        nothing

    Args:
        found: the map; None: the one that comes with the request.
        spread: k; the larger, the more alike are the shares for their cost.

    Source:
        the map: Li et al., "Pruning filters for efficient ConvNets", ICLR 2017, section 3.2; a common price: Everett,
        "Generalized Lagrange multiplier method", 1963.
    """

    needs_map = True

    def __init__(self, found: SensitivityMap | None = None, spread: float = 1.0) -> None:
        if not isinstance(spread, int | float) or not spread > 0:
            raise UsageError("'spread' is out of range", expected="a number > 0", got=repr(spread))
        self.found, self.spread = found, spread

    def widths(self, request: Request) -> dict[str, float]:
        """Sizes without the shares at the common price.

        Raises:
            UsageError: there is no map, or it is of other groups.
        """
        found = self._checked(request)
        out = request.whole
        for ratio in sorted({request.ratios[g.name] for g in request.active}):
            sizes = {g.name: g.size for g in request.active if request.ratios[g.name] == ratio}
            shares = self._at(found, request.savings, sizes, ratio)
            out |= {name: size * (1 - shares[name]) for name, size in sizes.items()}
        return out

    def solve(
        self, request: Request, cost: Callable[[Mapping[str, int]], float], allowed: Mapping[str, Sequence[int]]
    ) -> dict[str, int]:
        """The widths for a budget: see :meth:`luthier.allocate.knapsack.Knapsack.solve`."""
        return Knapsack(self._checked(request)).solve(request, cost, allowed)

    def _checked(self, request: Request) -> SensitivityMap:
        found = self.found or request.sensitivity
        if found is None or any(g.name not in found.rises for g in request.groups):
            raise UsageError(
                "the allocation 'sensitivity' needs a map of these groups",
                expected="allocate=Sensitivity(measure_map(...)), or data= and loss= to measure one",
                got="None" if found is None else f"a map of {', '.join(found.rises)}",
            )
        return found

    def _at(
        self, found: SensitivityMap, savings: Mapping[str, float], sizes: Mapping[str, int], ratio: float
    ) -> dict[str, float]:
        """The shares at the price at which they add up to a ratio of all indices; between two where it is a leap."""
        names = list(sizes)
        mean = max(1e-12, float(np.mean([found.rise(name, 0.5) for name in names])))
        pain = np.array([[found.rise(name, r) for r in GRID] for name in names]) / mean
        pain -= self.spread * np.log1p(-GRID)
        saved = np.array([savings.get(name, 1.0) for name in names])
        saved = np.maximum(saved, 1e-6 * max(saved.max(), 1e-12))
        size, wanted = np.array([sizes[name] for name in names]), ratio * sum(sizes.values())
        low, high = -30.0, 30.0  # of the price's logarithm
        for _ in range(50):
            middle = (low + high) / 2
            gone = float(size @ _best(pain, saved, middle))
            low, high = (middle, high) if gone < wanted else (low, middle)
        less, more = _best(pain, saved, low), _best(pain, saved, high)
        missing = (wanted - size @ less) / max(1e-12, size @ (more - less))
        shares = less + np.clip(missing, 0, 1) * (more - less) if ratio < GRID[-1] else np.full(len(names), ratio)
        return dict(zip(names, map(float, shares), strict=True))


def _best(pain: np.ndarray, saved: np.ndarray, log_price: float) -> np.ndarray:
    """Each group's share of least pain minus savings, [groups]."""
    price = np.exp(log_price) / saved.max()
    best: np.ndarray = GRID[np.argmin(pain - price * saved[:, None] * GRID, axis=1)]
    return best


METHOD = Sensitivity
