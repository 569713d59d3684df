"""How much goes where: from scores to the indices that stay. One file is one allocation.

An allocation's ``METHOD`` is a class with ``widths(request)``: how many indices of each group should stay, as
fractions allowed. Rounding, least widths and the choice of the indices are the same for all and happen here.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from luthier import discover
from luthier.errors import BudgetError, UsageError, nearest
from luthier.model import Analysis, axes, cost
from luthier.model.groups import Group

Ratio = float | Mapping[str, float]


@dataclass(frozen=True)
class Request:
    """What an allocation has to go by.

    Args:
        groups: what may be cut.
        scores: group name -> scores [group size].
        ratios: group name -> the share of it that should go, 0 to 1.
        threshold: scores below it should go; None where ratios rule.
    """

    groups: tuple[Group, ...]
    scores: Mapping[str, Tensor]
    ratios: Mapping[str, float]
    threshold: float | None = None


class Allocation(Protocol):
    """What every allocation does."""

    def widths(self, request: Request) -> dict[str, float]:
        """How many indices of each group should stay."""
        ...


@dataclass(frozen=True)
class Rounding:
    """How widths are rounded.

    Args:
        multiple: layer widths become multiples of it, where the layer is at least that wide.
        minimum: the least number of indices that stay, at least 1.
    """

    multiple: int = 1
    minimum: int = 1

    def __post_init__(self) -> None:
        for name, value in (("multiple", self.multiple), ("minimum", self.minimum)):
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"{name!r} is not a positive whole number", expected=f"{name} >= 1", got=repr(value))

    def width(self, group: Group, wanted: float) -> int:
        """The number of indices that stay, nearest to what is wanted: never 0, never more than there are."""
        step = step_of(group, self.multiple)
        if step > group.size:
            step = 1
        nearest_step = round(wanted / step) * step
        return max(min(nearest_step, group.size), min(self.minimum, group.size), step)


def step_of(group: Group, multiple: int) -> int:
    """How many indices of a group change its widths by a multiple of ``multiple``.

    A group that only occurs as one factor of a product (heads of 16 each) already comes in such steps.
    """
    factor = 0
    for place in group.occurrences:
        factor = math.gcd(factor, _cofactor(place.expr, group.axis))
    return multiple // math.gcd(multiple, factor or 1)


def _cofactor(e: axes.Expr, axis: axes.Axis) -> int:
    """By how much a dimension shrinks with each index of an axis that goes."""
    return int(np.count_nonzero(axes.positions(e, axis) == 0))


def names() -> list[str]:
    """The allocations there are."""
    return [name.removesuffix("_") for name in discover.names(__name__)]


def get(method: str | Allocation) -> Allocation:
    """The allocation of that name; an object is handed through.

    Raises:
        UsageError: there is no such allocation.
    """
    if not isinstance(method, str):
        return method
    name = f"{method}_" if method == "global" else method
    made: Allocation = discover.load(__name__, name, "allocation")()
    return made


def allocate(
    analysis: Analysis,
    scores: Mapping[str, Tensor],
    method: str | Allocation = "uniform",
    *,
    ratio: Ratio | None = None,
    threshold: float | None = None,
    budget: Mapping[str, float] | None = None,
    rounding: Rounding = Rounding(),
) -> dict[str, list[int]]:
    """Decides which indices of each group stay.

    Args:
        analysis: of the network.
        scores: group name -> scores; groups without scores stay whole.
        method: a name (see ``luthier methods``) or an object.
        ratio: the share that goes; or shares by pattern of group names, such as ``{"layer1.*": 0.3}``.
        threshold: scores below it go.
        budget: the share of "macs" or "params" that may be left, such as ``{"macs": 0.5}``.
        rounding: multiples and least widths.

    Returns:
        group name -> sorted indices that stay; groups that stay whole are left out.

    Raises:
        UsageError: not exactly one of ratio, threshold and budget; a ratio outside [0, 1); a pattern that
            matches no group.
        BudgetError: even the least widths cost more.
    """
    given = [name for name, v in (("ratio", ratio), ("threshold", threshold), ("budget", budget)) if v is not None]
    if len(given) != 1:
        raise UsageError(
            "say how much to cut in one way",
            expected="one of ratio=, threshold=, budget=",
            got=", ".join(given) or "none",
        )
    groups = tuple(g for g in analysis.all_groups if g.name in scores)
    chosen = get("threshold" if threshold is not None and method == "uniform" else method)

    def keep(share: Ratio) -> dict[str, list[int]]:
        request = Request(groups, scores, ratios(groups, share), threshold)
        return _pick(request, chosen.widths(request), rounding)

    return keep(ratio if ratio is not None else 0.0) if budget is None else _to_budget(analysis, budget, keep)


def ratios(groups: tuple[Group, ...], ratio: Ratio) -> dict[str, float]:
    """The share of each group that goes.

    Raises:
        UsageError: a share outside [0, 1), or a pattern that matches no group.
    """
    if not isinstance(ratio, Mapping):
        return {g.name: _share(ratio) for g in groups}
    out = dict.fromkeys((g.name for g in groups), 0.0)
    for pattern, share in ratio.items():
        matched = fnmatch.filter(out, pattern)
        if not matched:
            raise UsageError(
                f"the pattern {pattern!r} matches no group that can be cut",
                expected="one of " + ", ".join(out),
                got=repr(pattern),
                fix=nearest(pattern, out),
            )
        out.update(dict.fromkeys(matched, _share(share)))
    return out


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise UsageError("a ratio is the share that goes", expected="0 <= ratio < 1", got=repr(value))
    return float(value)


def _pick(request: Request, widths: Mapping[str, float], rounding: Rounding) -> dict[str, list[int]]:
    out = {}
    for group in request.groups:
        count = rounding.width(group, widths[group.name])
        if count < group.size:
            best = np.argsort(-request.scores[group.name].double().cpu().numpy(), kind="stable")[:count]
            out[group.name] = sorted(int(i) for i in best)
    return out


def _to_budget(analysis: Analysis, budget: Mapping[str, float], keep: Any) -> dict[str, list[int]]:
    """The smallest ratio that meets a budget, by bisection on predicted costs."""
    measures = {"macs": cost.macs, "params": cost.parameters, "parameters": cost.parameters}
    for name, share in budget.items():
        if name not in measures:
            raise UsageError(f"unknown budget {name!r}", expected="one of " + ", ".join(measures), got=repr(name))
        if not 0 < share <= 1:
            raise UsageError("a budget is the share that may be left", expected="0 < budget <= 1", got=repr(share))
    dense = {name: measures[name](analysis) for name in budget}

    def met(plan: dict[str, list[int]]) -> bool:
        return all(measures[name](analysis, plan) <= share * dense[name] for name, share in budget.items())

    low, high = 0.0, 1.0 - 1e-9
    if met(keep(low)):
        return dict(keep(low))
    if not met(keep(high)):
        least = {name: f"{measures[name](analysis, keep(high)) / dense[name]:.3f}" for name in budget}
        raise BudgetError(
            "no cut meets this budget",
            expected=", ".join(f"{k} <= {v}" for k, v in budget.items()),
            got=", ".join(f"{k} = {v} with every width at its least" for k, v in least.items()),
            fix="ask for less, protect fewer modules, or cut along more axes",
        )
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if met(keep(middle)) else (middle, high)
    return dict(keep(high))
