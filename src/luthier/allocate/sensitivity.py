"""From every group the share whose removal, alone, hurts equally."""

from __future__ import annotations

from luthier.allocate import Request
from luthier.allocate._map import SensitivityMap, measure_map
from luthier.errors import UsageError

__all__ = ["METHOD", "Sensitivity", "SensitivityMap", "measure_map"]


class Sensitivity:
    """From every group the share whose removal, alone, hurts equally.

    A map of what the removal of a quarter, half ... of each group costs is measured first, by evaluation alone; then
    the common level is found at which the shares add up to the ratio, or to the budget. Groups of different ratios (by
    pattern) have levels of their own.

    Args:
        found: the map; None: the one that comes with the request.

    Source:
        Li et al., "Pruning filters for efficient ConvNets", ICLR 2017, section 3.2 (sensitivity by layer).
    """

    needs_map = True

    def __init__(self, found: SensitivityMap | None = None) -> None:
        self.found = found

    def widths(self, request: Request) -> dict[str, float]:
        """Sizes without the shares at the common level.

        Raises:
            UsageError: there is no map, or it is of other groups.
        """
        found = self.found or request.sensitivity
        if found is None or any(g.name not in found.rises for g in request.groups):
            raise UsageError(
                "the allocation 'sensitivity' needs a map of these groups",
                expected="allocate=Sensitivity(measure_map(...)), or data= and loss= to measure one",
                got="None" if found is None else f"a map of {', '.join(found.rises)}",
            )
        out = request.whole
        for ratio in sorted({request.ratios[g.name] for g in request.active}):
            mine = [g for g in request.active if request.ratios[g.name] == ratio]
            level = _level(found, {g.name: g.size for g in mine}, ratio)
            out |= {g.name: g.size * (1 - found.ratio(g.name, level)) for g in mine}
        return out


def _level(found: SensitivityMap, sizes: dict[str, int], ratio: float) -> float:
    """The rise at which the shares of all groups add up to a ratio of all indices, by bisection."""
    wanted, low, high = ratio * sum(sizes.values()), 0.0, found.most * (1 + 1e-6)
    for _ in range(60):
        middle = (low + high) / 2
        gone = sum(size * found.ratio(name, middle) for name, size in sizes.items())
        low, high = (middle, high) if gone < wanted else (low, middle)
    return high


METHOD = Sensitivity
