"""Widths by what the removal of each group alone does, with a law in between that no layer is choked by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from luthier.allocate import Request
from luthier.allocate._map import SensitivityMap, measure_map
from luthier.allocate.knapsack import Choice, cheapest, falling
from luthier.errors import UsageError

__all__ = ["METHOD", "Sensitivity", "SensitivityMap", "measure_map"]


class Sensitivity:
    """Widths by what the removal of each group alone does, with a law in between that no layer is choked by.

    A map of what the removal of a quarter, half ... of each group does is measured first, by evaluation alone. From it
    a group gets one number, how steeply the loss rises as its width falls; the rise is taken to be in inverse
    proportion to the width, as losses follow power laws of size. To a ratio, all groups pay a common price for what
    they save, found by bisection. To a budget, steps go one by one, the least rise for the cost saved first, then
    exactly, as in ``knapsack`` (which takes the map as it is measured). Groups of different ratios (by pattern) have
    prices of their own.

    Formula:
        s_g(r) = a_g r / (1 - r), a_g the least-squares fit to the map; at a common price 1 - r_g = min(1, sqrt(a_g /
        (price c_g))), c_g what the group saves of the budget's cost (of MACs, where there is none)

    Args:
        found: the map; None: the one that comes with the request.

    Source:
        the map: Li et al., "Pruning filters for efficient ConvNets", ICLR 2017, section 3.2; the law: Rosenfeld et
        al., "On the predictability of pruning across scales", ICML 2021; a common price: Everett, "Generalized
        Lagrange multiplier method", 1963.
    """

    needs_map = True

    def __init__(self, found: SensitivityMap | None = None) -> None:
        self.found = found

    def widths(self, request: Request) -> dict[str, float]:
        """Sizes without the shares at the common price.

        Raises:
            UsageError: there is no map, or it is of other groups.
        """
        slopes = self._slopes(request)
        out = request.whole
        for ratio in sorted({request.ratios[g.name] for g in request.active}):
            sizes = {g.name: g.size for g in request.active if request.ratios[g.name] == ratio}
            saved = np.array([request.savings.get(name, 1.0) for name in sizes])
            steep = np.array([slopes[name] for name in sizes]) / np.maximum(saved, 1e-6 * max(saved.max(), 1e-12))
            left = _left(np.sqrt(steep), np.array(list(sizes.values())), ratio)
            out |= {name: size * share for (name, size), share in zip(sizes.items(), map(float, left), strict=True)}
        return out

    def solve(
        self, request: Request, cost: Callable[[Mapping[str, int]], float], allowed: Mapping[str, Sequence[int]]
    ) -> dict[str, int]:
        """The widths for a budget: see :meth:`luthier.allocate.knapsack.Knapsack.solve`."""
        slopes = self._slopes(request)
        choices = []
        for name in (g.name for g in request.active):
            widths = falling(allowed[name])
            choices.append(Choice(name, widths, tuple(slopes[name] * (widths[0] / w - 1) for w in widths)))
        return cheapest(choices, cost)

    def _slopes(self, request: Request) -> dict[str, float]:
        found = self.found or request.sensitivity
        if found is None or any(g.name not in found.rises for g in request.groups):
            raise UsageError(
                "the allocation 'sensitivity' needs a map of these groups",
                expected="allocate=Sensitivity(measure_map(...)), or data= and loss= to measure one",
                got="None" if found is None else f"a map of {', '.join(found.rises)}",
            )
        return found.slopes()


def _left(weights: np.ndarray, sizes: np.ndarray, ratio: float) -> np.ndarray:
    """The shares that stay: in proportion to weights, none above 1, and a ratio of all indices gone; [groups]."""
    wanted = (1 - ratio) * sizes.sum()
    low, high = 0.0, 1.0 / weights.min()  # at the last everything stays
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sizes @ np.minimum(1.0, middle * weights) < wanted else (low, middle)
    return np.asarray(np.minimum(1.0, high * weights))


METHOD = Sensitivity
