"""The widths that keep most for the cost: a knapsack over steps of every group."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from luthier.allocate import Request
from luthier.allocate._map import SensitivityMap
from luthier.allocate._scores import by_mean

MOST_STEPS = 16
"""Into how many steps a group is divided at most."""
_ROUNDS = 4
_REACH = 3  # steps
Widths = dict[str, int]


class Knapsack:
    """The widths that keep most for the cost: a knapsack over steps of every group.

    What a width loses is its rise in a sensitivity map where there is one, else the sum of the scores (each group's
    over their mean) that go. What it costs is what the budget measures, such as predicted latency. Steps go one by
    one, the least loss for the cost saved first; then the choice is solved anew exactly, with costs linear around it,
    and steps are exchanged between pairs, as long as that helps. Given a ratio instead of a budget, every index
    costs the same.

    Args:
        found: a sensitivity map; None: the one that comes with the request, if any.

    Source:
        the exact step: Kellerer et al., "Knapsack problems", 2004, chapter 11 (multiple choice, by dominance); for
        networks: Shen et al., "Structural pruning via latency-saliency knapsack", NeurIPS 2022.
    """

    def __init__(self, found: SensitivityMap | None = None) -> None:
        self.found = found

    def widths(self, request: Request) -> dict[str, float]:
        """The best widths with this share of all indices gone."""
        sizes = {g.name: g.size for g in request.active}
        left = sum(sizes.values()) - request.gone(request.active)

        def cost(widths: Mapping[str, int]) -> float:
            return sum(widths.values()) / max(left, 1)

        found = self.solve(request, cost, {name: range(1, n + 1) for name, n in sizes.items()}) if sizes else {}
        return request.whole | {name: float(w) for name, w in found.items()}

    def solve(
        self, request: Request, cost: Callable[[Mapping[str, int]], float], allowed: Mapping[str, Sequence[int]]
    ) -> Widths:
        """The widths that lose least within a budget.

        Args:
            request: groups, scores, map.
            cost: of widths by group name, 1 at the budget's limit.
            allowed: group name -> the widths it may have, rising.
        """
        found = self.found or request.sensitivity
        return cheapest(
            [_choices(g.name, allowed[g.name], request.scores[g.name], found) for g in request.active], cost
        )


@dataclass(frozen=True)
class Choice:
    """What one group may become.

    Args:
        name: the group's.
        widths: falling.
        losses: of each, rising from 0.
    """

    name: str
    widths: tuple[int, ...]
    losses: tuple[float, ...]


def cheapest(choices: Sequence[Choice], cost: Callable[[Mapping[str, int]], float]) -> Widths:
    """Of every group the width that together lose least within a budget.

    Args:
        choices: of every group.
        cost: of widths by group name, 1 at the budget's limit.
    """
    return _at(choices, _polished(choices, cost, _greedy(choices, cost)))


def falling(allowed: Sequence[int]) -> tuple[int, ...]:
    """Widths from the largest to the least, at most :data:`MOST_STEPS` steps of about the same size."""
    thinned = np.linspace(0, len(allowed) - 1, min(len(allowed), MOST_STEPS + 1)).round()
    return tuple(allowed[int(i)] for i in reversed(thinned))


def _choices(name: str, allowed: Sequence[int], scores: Tensor, found: SensitivityMap | None) -> Choice:
    size, widths = allowed[-1], falling(allowed)
    if found is not None and name in found.rises:
        return Choice(name, widths, tuple(found.rise(name, 1 - w / size) for w in widths))
    lost = np.concatenate([[0.0], np.cumsum(np.sort(by_mean(scores).cpu().numpy()))])
    return Choice(name, widths, tuple(float(lost[size - w]) for w in widths))


def _at(choices: Sequence[Choice], index: Sequence[int]) -> Widths:
    return {c.name: c.widths[i] for c, i in zip(choices, index, strict=True)}


def _loss(choices: Sequence[Choice], index: Sequence[int]) -> float:
    return sum(c.losses[i] for c, i in zip(choices, index, strict=True))


def _greedy(choices: Sequence[Choice], cost: Callable[[Mapping[str, int]], float]) -> list[int]:
    """Step by step the least loss for the cost saved, until the budget is met.

    What a step saves only falls as others are taken, so that a price that still leads after it is looked at again is
    the lowest.
    """
    index, now = [0] * len(choices), cost(_at(choices, [0] * len(choices)))

    def price(i: int) -> float:
        after = cost(_at(choices, [k + (j == i) for j, k in enumerate(index)]))
        return _step_loss(choices[i], index[i]) / max(now - after, 1e-12)

    heap = [(price(i), i) for i, c in enumerate(choices) if len(c.widths) > 1] if now > 1 else []
    heapq.heapify(heap)
    while heap and now > 1:
        _, i = heapq.heappop(heap)
        again = price(i)
        if heap and again > heap[0][0] * (1 + 1e-9) + 1e-15:
            heapq.heappush(heap, (again, i))
            continue
        index[i] += 1
        now = cost(_at(choices, index))
        if index[i] + 1 < len(choices[i].widths):
            heapq.heappush(heap, (price(i), i))
    return index


def _step_loss(choice: Choice, i: int) -> float:
    return choice.losses[i + 1] - choice.losses[i]


def _polished(
    choices: Sequence[Choice], cost: Callable[[Mapping[str, int]], float], start: Sequence[int]
) -> Sequence[int]:
    """Solves exactly with costs linear around the best choice so far, until that is no better."""
    best, spare = list(start), 0.0
    if cost(_at(choices, best)) > 1:
        return best  # nothing meets the budget
    for _ in range(_ROUNDS):
        base = cost(_at(choices, best))
        table = [
            [cost({**_at(choices, best), c.name: w}) - base for w in c.widths] for c in choices
        ]  # what each change alone adds
        index = exact(table, [c.losses for c in choices], 1 - base - spare)
        if index is None or _loss(choices, index) >= _loss(choices, best) - 1e-12:
            break
        if cost(_at(choices, index)) > 1:
            spare += cost(_at(choices, index)) - 1  # two changes cost more than the sum of both: leave room
            continue
        best = index
    return _exchanged(choices, cost, best)


def _exchanged(
    choices: Sequence[Choice], cost: Callable[[Mapping[str, int]], float], start: Sequence[int]
) -> Sequence[int]:
    """Lets one group grow by a few steps where others' shrinking pays for it, as long as that loses less."""
    best = list(start)
    for _ in range(len(choices) * _REACH):
        better = next(_exchanges(choices, cost, best), None)
        if better is None:
            break
        best = better
    return best


def _exchanges(
    choices: Sequence[Choice], cost: Callable[[Mapping[str, int]], float], now: Sequence[int]
) -> Iterator[list[int]]:
    loss = _loss(choices, now)
    for i, j in itertools.permutations(range(len(choices)), 2):
        for up, down in itertools.product(range(1, _REACH + 1), range(_REACH + 1)):
            tried = list(now)
            tried[i], tried[j] = now[i] - up, now[j] + down
            inside = tried[i] >= 0 and tried[j] < len(choices[j].widths)
            if inside and _loss(choices, tried) < loss - 1e-12 and cost(_at(choices, tried)) <= 1:
                yield tried


def exact(costs: Sequence[Sequence[float]], losses: Sequence[Sequence[float]], limit: float) -> list[int] | None:
    """One choice from each row so that costs add up to at most ``limit`` and losses to the least; None if none does.

    Dominated states (dearer and worse than another) are dropped row by row, so that the answer is exact up to 2,000
    states, beyond which states of nearly equal cost are merged.

    Example:
        >>> exact([[3, 1], [3, 2]], [[0, 5], [0, 1]], 5)
        [0, 1]
    """
    states: list[tuple[float, float, tuple[int, ...]]] = [(0.0, 0.0, ())]
    least = [min(row) for row in costs]
    rest = list(itertools.accumulate(reversed(least), initial=0.0))[::-1]
    for row, (prices, lost) in enumerate(zip(costs, losses, strict=True)):
        grown = [
            (c + p, loss + d, (*picks, i))
            for c, loss, picks in states
            for i, (p, d) in enumerate(zip(prices, lost, strict=True))
            if c + p + rest[row + 1] <= limit + 1e-12
        ]
        states = _front(grown)
    return list(min(states, key=lambda s: (s[1], s[0]))[2]) if states else None


def _front(states: list[tuple[float, float, tuple[int, ...]]]) -> list[tuple[float, float, tuple[int, ...]]]:
    kept: list[tuple[float, float, tuple[int, ...]]] = []
    for state in sorted(states):
        if not kept or state[1] < kept[-1][1]:
            kept.append(state)
    if len(kept) > 2000:
        kept = [kept[i] for i in np.linspace(0, len(kept) - 1, 2000).round().astype(int)]
    return kept


METHOD = Knapsack
