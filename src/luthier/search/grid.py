"""Grid search."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from luthier.errors import UsageError
from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.parameters import Structure
from luthier.search import _fresh
from luthier.search._walk import Walk
from luthier.space import Params, Space
from luthier.trial import Trial

_COUNTED = 20_000
_LISTED = 100_000


@dataclass(frozen=True)
class Grid:
    """Every combination of listed values, in order, skipping what was tried; then it ends.

    Branches that a predicate of ``where`` forbids are left out whole, as soon as the parameters that it reads have
    their values: put those first.

    When it helps: few parameters with few values each, or a table that must be complete.
    When it hurts: from four parameters on; most of its trials then repeat what others have shown.

    Args:
        levels: how many values stand for a Float, and for an Int that has more.

    Example:
        >>> from luthier import Choice, Float, Space
        >>> space = Space(a=Choice(["x", "y"]), b=Float(0, 1).when(a="y"))
        >>> Grid(levels=2).ask(space, None, [], [], 9, None)
        [{'a': 'x'}, {'a': 'y', 'b': 0.0}, {'a': 'y', 'b': 1.0}]
    """

    levels: int = 5
    _tried: _fresh.Tried = field(default_factory=_fresh.Tried, init=False, repr=False, compare=False)
    _cache: list[_Place] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise UsageError("Grid: 'levels' is below 1", expected="levels >= 1", got=self.levels)

    def ask(
        self,
        space: Space,
        objectives: Objectives,
        history: Sequence[Trial],
        pending: Sequence[Trial],
        n: int,
        key: Key,
    ) -> list[Params]:
        """See :class:`luthier.search.Algorithm`; nothing is drawn, so the key does not matter.

        Raises:
            UsageError: nothing listed is allowed, or too little to be found; a structure has more than 100,000 values.
        """
        _refuse_large(space)
        taken = self._tried.taken(history, pending)
        place = self._cache[0] if self._cache else None
        if place is None or place.space is not space or not place.still(taken):
            place = _Place(space, self.levels)
        self._cache[:] = [place]
        found = place.next(n, taken)
        if not found and n > 0 and space.where and (place.walk.lost or not len(taken)):
            _fresh.give_up(place.walk.refusal(), taken)
        return found

    def count(self, space: Space) -> int | None:
        """How many combinations there are; None: more than are worth counting."""
        _refuse_large(space)
        found = sum(1 for _ in islice(Walk(space, self.levels), _COUNTED + 1))
        return found if found <= _COUNTED else None


class _Place:
    """How far a walk has come: everything before is taken, or waits."""

    def __init__(self, space: Space, levels: int) -> None:
        self.space, self.walk = space, Walk(space, levels)
        self._steps: Iterator[Params] = iter(self.walk)
        self._skipped: set[_fresh.Label] = set()
        self._waiting: deque[Params] = deque()  # combinations that were proposed, and may not have been taken

    def still(self, taken: _fresh.Taken) -> bool:
        """Whether all that was skipped is still taken."""
        return taken.holds(self._skipped)

    def next(self, n: int, taken: _fresh.Taken) -> list[Params]:
        """The next n combinations that are not taken; they come again until they are."""
        found: list[Params] = []
        while self._waiting and self._waiting[0] in taken:
            self._skipped.add(_fresh.label(self._waiting.popleft()))
        found = [p for p in self._waiting if p not in taken][:n]
        for params in self._steps if len(found) < n else ():
            self._waiting.append(params)
            if params not in taken:
                found.append(params)
            if len(found) == n:
                break
        return [dict(p) for p in found]


def _refuse_large(space: Space) -> None:
    for name, parameter in space.parameters.items():
        if isinstance(parameter, Structure) and parameter.size > _LISTED:
            count = f"{parameter.size:,}" if math.isfinite(parameter.size) else "more than can be counted"
            raise UsageError(
                f"the grid of parameter {name!r} is too large",
                expected=f"at most {_LISTED:,} values",
                got=count,
                fix='algorithm="bayes", "tpe", "nsga2" or "random"',
            )


METHOD = Grid
