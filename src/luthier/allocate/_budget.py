"""Widths for a budget: bisection, then what still fits is put back."""

from __future__ import annotations

import bisect
import itertools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from luthier.errors import BudgetError, UsageError
from luthier.model import Analysis, cost
from luthier.model.cost import KeepByName

Cost = Callable[[KeepByName], float]
"""From what stays of each group (those not named stay whole) to a cost in any unit."""
Keep = dict[str, list[int]]
_REACH = 3  # steps
CLOSE = 0.02
"""A budget is met when the cost is at most this far, as a share of it, below."""


@dataclass(frozen=True)
class CostLimits:
    """Limits on costs.

    Attributes:
        costs: name -> cost of a cut.
        limits: name -> the largest cost.
        dense: name -> the cost without a cut.
        multiple: what widths are multiples of.
    """

    costs: Mapping[str, Cost]
    limits: Mapping[str, float]
    dense: Mapping[str, float]
    multiple: int = 1

    @classmethod
    def of(
        cls, analysis: Analysis, shares: Mapping[str, float], more: Mapping[str, Cost], multiple: int = 1
    ) -> CostLimits:
        """Reads ``{"macs": 0.5}``.

        Raises:
            UsageError: no cost, an unknown one, one that is nothing for the whole network, or a share outside (0, 1].
        """
        if not shares:
            raise UsageError("the budget names no cost", expected='{"macs": 0.5}', got=repr(shares))
        known: dict[str, Cost] = {
            "macs": lambda keep: cost.macs(analysis, keep),
            "params": lambda keep: cost.parameters(analysis, keep),
            "bytes": lambda keep: cost.size_in_bytes(analysis, keep),
        }
        known |= {"parameters": known["params"], **more}
        for name, share in shares.items():
            if name not in known:
                fix = "costs={'latency': ...}, a function from what stays to a time" if name == "latency" else None
                raise UsageError(
                    f"unknown budget {name!r}",
                    expected="one of " + ", ".join(dict.fromkeys([*known, "latency"])),
                    got=repr(name),
                    fix=fix,
                )
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
                raise UsageError("a budget is the share that may be left", expected="0 < budget <= 1", got=repr(share))
        dense = {name: float(known[name]({})) for name in shares}
        for name, whole in dense.items():
            if name in more and not 0 < whole < float("inf"):
                raise UsageError(
                    f"the cost {name!r} of the whole network is no positive number",
                    expected="a cost above 0 for {}: groups that are not named stay whole",
                    got=f"{whole:g}",
                )
        limits = {name: share * dense[name] for name, share in shares.items()}
        return cls({n: known[n] for n in shares}, limits, dense, multiple)

    def used(self, keep: KeepByName) -> float:
        """The cost as a share of its limit, the largest of all; at most 1 is within."""
        return max(self.costs[name](keep) / max(limit, 1e-12) for name, limit in self.limits.items())

    def shares(self, keep: KeepByName) -> dict[str, float]:
        """Each cost as a share of the dense network's."""
        return {name: cost(keep) / self.dense[name] for name, cost in self.costs.items()}

    def refusal(self, keep: KeepByName) -> BudgetError:
        """The error for a budget that the least widths still miss."""
        wanted = {name: limit / self.dense[name] for name, limit in self.limits.items()}
        finer = f", or let widths go below multiples of {self.multiple}: multiple=1" if self.multiple > 1 else ""
        return BudgetError(
            "no cut meets this budget",
            expected=", ".join(f"{k} <= {v:g}" for k, v in wanted.items()),
            got=", ".join(f"{k} = {v:.3f}" for k, v in self.shares(keep).items()) + " with every width at its least",
            fix=f"ask for less, protect fewer modules, or cut along more axes{finer}",
        )


def smallest_cut(budget: CostLimits, keep: Callable[[float], Keep]) -> Keep:
    """The smallest ratio whose cut is within a budget, by bisection.

    Raises:
        BudgetError: not even the largest is.
    """
    low, high = 0.0, 1.0 - 1e-9
    if budget.used(keep(low)) <= 1:
        return keep(low)
    best = keep(high)
    if budget.used(best) > 1:
        raise budget.refusal(best)
    for _ in range(30):
        middle = (low + high) / 2
        tried = keep(middle)
        if budget.used(tried) <= 1:
            high, best = middle, tried
            if budget.used(best) > 1 - CLOSE / 4:
                break
        else:
            low = middle
    return best


def filled(
    budget: CostLimits, widths: Mapping[str, int], steps: Mapping[str, Any], keep: Callable[[Mapping[str, int]], Keep]
) -> dict[str, int]:
    """Widths grown step by step while the budget allows: the step that is nearest to it first.

    Args:
        budget: the limits.
        widths: a start within the budget.
        steps: group name -> the widths it may have, rising.
        keep: from widths to what stays.
    """
    now = dict(widths)
    used = budget.used(keep(now))
    open_ = {name for name in now if now[name] < steps[name][-1]}
    while open_ and used < 1 - CLOSE / 4:
        tried: dict[str, float] = {}
        for name in sorted(open_):
            wider = min(w for w in steps[name] if w > now[name])
            tried[name] = budget.used(keep({**now, name: wider}))
        open_ = {name for name, share in tried.items() if share <= 1}
        if not open_:
            break
        best = max(sorted(open_), key=lambda name: (-_share(now, steps, name), tried[name]))
        now[best], used = min(w for w in steps[best] if w > now[best]), tried[best]
        open_ = {name for name in open_ if now[name] < steps[name][-1]}
    return now


def traded(
    budget: CostLimits, widths: Mapping[str, int], steps: Mapping[str, Any], keep: Callable[[Mapping[str, int]], Keep]
) -> dict[str, int]:
    """Widths of which one shrinks by a few steps so that another, growing, uses what no growth alone could.

    The fewest steps with which the budget is met, and of these what comes nearest to it; the widths as they are where
    they meet it, or nothing comes nearer. The arguments are those of :func:`filled`.
    """
    best = dict(widths)
    used = budget.used(keep(best))
    for down in range(1, _REACH + 1):
        if used >= 1 - CLOSE:
            break
        for narrow, wide in itertools.permutations(sorted(widths), 2):
            place = list(steps[narrow]).index(widths[narrow]) - down
            if place >= 0:
                tried = _grown(budget, {**widths, narrow: steps[narrow][place]}, wide, steps[wide], keep)
                if used < (found := budget.used(keep(tried))) <= 1:
                    best, used = tried, found
    return best


def _grown(
    budget: CostLimits, now: dict[str, int], name: str, steps: Any, keep: Callable[[Mapping[str, int]], Keep]
) -> dict[str, int]:
    """One width as large as the budget allows."""
    wider = [w for w in steps if w >= now[name]]
    fits = bisect.bisect(wider, 1.0, key=lambda w: budget.used(keep({**now, name: w})))
    return {**now, name: wider[max(fits - 1, 0)]}


def _share(now: Mapping[str, int], steps: Mapping[str, Any], name: str) -> float:
    return round(now[name] / int(steps[name][-1]), 2)


def tell(budget: CostLimits, keep: KeepByName) -> None:
    """Says so where the nearest widths leave more than :data:`CLOSE` of the budget unused."""
    used = budget.used(keep)
    if used < 1 - CLOSE:
        found = ", ".join(
            f"{n} {s:.3f} of {budget.limits[n] / budget.dense[n]:g}" for n, s in budget.shares(keep).items()
        )
        warnings.warn(f"the nearest widths leave {1 - used:.0%} of the budget unused ({found})", stacklevel=4)
