"""How much goes where: from scores to the indices that stay. One file is one allocation.

An allocation's ``METHOD`` is a class with ``widths(request)``: how many indices of each group should stay, as
fractions allowed. Rounding, least widths and the choice of the indices are the same for all and happen here.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from luthier import discover
from luthier.allocate._budget import Cost, CostLimits, filled, smallest_cut, tell, traded
from luthier.allocate._families import families
from luthier.allocate._map import SensitivityMap, measure_map
from luthier.allocate._scores import lamp
from luthier.errors import UsageError, nearest
from luthier.model import Analysis, axes
from luthier.model.groups import Group

__all__ = [
    "Allocation",
    "Cost",
    "CostLimits",
    "Ratio",
    "Request",
    "Rounding",
    "SensitivityMap",
    "allocate",
    "families",
    "get",
    "lamp",
    "measure_map",
    "names",
    "needs_map",
    "ratios",
    "savings",
    "step_of",
    "strongest",
]

Ratio = float | Mapping[str, float]
Keep = dict[str, list[int]]


@dataclass(frozen=True)
class Request:
    """What an allocation has to go by.

    Args:
        groups: what may be cut.
        scores: group name -> scores [group size].
        ratios: group name -> the share of it that should go, 0 to 1.
        threshold: scores below it should go; None where ratios rule.
        sensitivity: what the removal of each group does, where it was measured.
        savings: group name -> how much of the cost each share of it saves; where none is known, all alike.
    """

    groups: tuple[Group, ...]
    scores: Mapping[str, Tensor]
    ratios: Mapping[str, float]
    threshold: float | None = None
    sensitivity: SensitivityMap | None = None
    savings: Mapping[str, float] = field(default_factory=dict)

    @property
    def active(self) -> list[Group]:
        """The groups of which something should go."""
        return [g for g in self.groups if self.ratios[g.name] > 0]

    @property
    def whole(self) -> dict[str, float]:
        """Every group's size."""
        return {g.name: float(g.size) for g in self.groups}

    def gone(self, groups: Iterable[Group]) -> int:
        """How many indices of some groups should go, all together."""
        return round(sum(g.size * self.ratios[g.name] for g in groups))


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
                words = ", or 'auto' where a network is cut" if name == "multiple" else ""
                raise UsageError(
                    f"{name!r} is not a positive whole number", expected=f"{name} >= 1{words}", got=repr(value)
                )

    def width(self, group: Group, wanted: float) -> int:
        """The number of indices that stay, nearest to what is wanted: never 0, never more than there are."""
        step = self.step(group)
        nearest_step = round(wanted / step) * step
        return max(min(nearest_step, group.size), min(self.minimum, group.size), step)

    def step(self, group: Group) -> int:
        """By how many indices a group's width changes."""
        step = step_of(group, self.multiple)
        return step if step <= group.size else 1

    def widths(self, group: Group) -> list[int]:
        """The widths a group may have, rising."""
        step = self.step(group)
        least = self.width(group, 0)
        return sorted({least, *(w for w in range(step, group.size, step) if w >= least), group.size})


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
    sensitivity: SensitivityMap | None = None,
    costs: Mapping[str, Cost] | None = None,
) -> dict[str, list[int]]:
    """Decides which indices of each group stay.

    Args:
        analysis: of the network.
        scores: group name -> scores; groups without scores stay whole.
        method: a name (see ``luthier methods``) or an object.
        ratio: the share that goes; or shares by pattern of group names, such as ``{"layer1.*": 0.3}``. A group's own
            name counts before patterns, and of several patterns the last.
        threshold: scores below it go.
        budget: the share of "macs", "params" or "bytes" that may be left, such as ``{"macs": 0.5}``; met from below,
            within 2 % where widths can be found that do, else as near as was found, with a warning that says so.
            "knapsack" may leave more where that loses less.
        rounding: multiples and least widths.
        sensitivity: a map (see :func:`measure_map`), for the allocations that go by one.
        costs: further costs that a budget may name, or other ways to count: functions from what stays to a number.
            "latency" is one of them here (:class:`luthier.measure.table.Predictor`), and "bytes" are those of the
            tensors; :func:`luthier.prune_neurons` brings the one along, and those of the ONNX file for the other.

    Returns:
        group name -> sorted indices that stay; groups that stay whole are left out.

    Raises:
        UsageError: not exactly one of ratio, threshold and budget; a threshold with an allocation that goes by shares;
            a ratio outside [0, 1); a pattern that matches no group.
        BudgetError: even the least widths cost more.
    """
    given = [name for name, v in (("ratio", ratio), ("threshold", threshold), ("budget", budget)) if v is not None]
    if len(given) != 1:
        raise UsageError(
            "say how much to cut in one way",
            expected="one of ratio=, threshold=, budget=",
            got=", ".join(given) or "none",
        )
    if threshold is not None and (not isinstance(threshold, int | float) or math.isnan(threshold)):
        raise UsageError("the threshold is no number", expected="a score, such as 0.01", got=repr(threshold))
    groups = tuple(g for g in analysis.all_groups if g.name in scores)
    chosen = get(method) if threshold is None else _by_threshold(method)

    limits = CostLimits.of(analysis, {"macs": 0.5} if budget is None else budget, costs or {}, rounding.multiple)
    saved = savings(groups, limits.used) if getattr(chosen, "needs_map", False) else {}

    def request(share: Ratio) -> Request:
        return Request(groups, scores, ratios(groups, share), threshold, sensitivity, saved)

    if budget is None:
        asked = request(ratio if ratio is not None else 0.0)
        return _pick(asked, _rounded(groups, chosen.widths(asked), rounding))
    return _to_budget(limits, chosen, request, rounding)


def _by_threshold(method: str | Allocation) -> Allocation:
    """A threshold says itself how much goes where; an allocation of the user's own may look at it.

    Raises:
        UsageError: an allocation that goes by shares.
    """
    chosen = get("threshold" if method == "uniform" else method)
    home = type(chosen).__module__
    if home.startswith(f"{__name__}.") and home != f"{__name__}.threshold":
        raise UsageError(
            "a threshold and an allocation are two ways to say how much goes where",
            expected="threshold= with allocate='uniform', the default",
            got=f"allocate={method if isinstance(method, str) else type(method).__name__!r}",
            fix="leave allocate= out, or give ratio= or budget= instead of threshold=",
        )
    return chosen


def savings(groups: Iterable[Group], cost: Cost) -> dict[str, float]:
    """How much of a cost goes with a group, from what goes with half of it while the others are whole."""
    dense = cost({})
    return {g.name: (dense - cost({g.name: range(g.size - g.size // 2)})) * g.size / (g.size // 2) for g in groups}


def _to_budget(budget: CostLimits, chosen: Any, request: Callable[[Ratio], Request], rounding: Rounding) -> Keep:
    whole = request(0.5)  # every group may be cut
    groups, sizes = whole.groups, {g.name: g.size for g in whole.groups}

    def keep(widths: Mapping[str, int]) -> Keep:
        """By position: enough to predict costs."""
        return {name: list(range(width)) for name, width in widths.items() if width < sizes[name]}

    def at(share: float) -> dict[str, int]:
        asked = request(share)
        return _rounded(groups, chosen.widths(asked), rounding)

    if hasattr(chosen, "solve"):
        allowed = {g.name: rounding.widths(g) for g in groups}
        widths = chosen.solve(whole, lambda w: budget.used(keep(w)), allowed)
        if budget.used(keep(widths)) > 1:
            raise budget.refusal(keep(widths))
    else:
        widths = {name: len(kept) for name, kept in smallest_cut(budget, lambda share: _named(at(share))).items()}
    steps = {g.name: rounding.widths(g) for g in groups}
    found = filled(budget, widths, steps, keep)
    if not hasattr(chosen, "solve") and "latency" not in budget.costs:  # what was solved for, or is measured, stays
        found = traded(budget, found, steps, keep)
    tell(budget, keep(found))
    return _pick(whole, found)


def _named(widths: Mapping[str, int]) -> Keep:
    return {name: list(range(width)) for name, width in widths.items()}


def needs_map(method: str | Allocation) -> bool:
    """Whether an allocation goes by a sensitivity map that it does not bring along."""
    chosen = get(method)
    return bool(getattr(chosen, "needs_map", False)) and getattr(chosen, "found", None) is None


def ratios(groups: tuple[Group, ...], ratio: Ratio) -> dict[str, float]:
    """The share of each group that goes; a group's own name counts before patterns.

    Raises:
        UsageError: a share outside [0, 1), or a pattern that matches no group.
    """
    if not isinstance(ratio, Mapping):
        return {g.name: _share(ratio) for g in groups}
    out = dict.fromkeys((g.name for g in groups), 0.0)
    if not ratio:
        raise UsageError("the ratio names no group", expected='{"layer1.*": 0.3}', got=repr(dict(ratio)))
    for pattern, share in sorted(ratio.items(), key=lambda item: item[0] in out):  # names last: they count
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


def _rounded(groups: Iterable[Group], widths: Mapping[str, float], rounding: Rounding) -> dict[str, int]:
    return {g.name: rounding.width(g, widths[g.name]) for g in groups}


def _pick(request: Request, widths: Mapping[str, int]) -> Keep:
    return {
        g.name: strongest(request.scores[g.name], widths[g.name]) for g in request.groups if widths[g.name] < g.size
    }


def strongest(scores: Tensor, count: int) -> list[int]:
    """The indices of the highest scores, sorted; of equal ones the first."""
    return sorted(int(i) for i in np.argsort(-scores.double().cpu().numpy(), kind="stable")[:count])
