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
from luthier.search import _checks, _fresh
from luthier.search._walk import Walk
from luthier.space import Float, Int, Params, Space
from luthier.trial import Trial

_COUNTED = 20_000
_LISTED = 100_000
_DRAWS = 10_000


@dataclass(frozen=True)
class Grid:
    """Every combination of listed values, in order, skipping what was tried; then it ends.

    Branches that a predicate of ``where`` forbids are left out whole, as soon as the parameters that it reads have
    their values: put those first. Where the first 200,000 are all forbidden, it begins at an allowed one instead.

    When it helps: few parameters with few values each, or a table that must be complete.
    When it hurts: from four parameters on; most of its trials then repeat what others have shown.
    Price: 0.1 ms a proposal, and the predicates' own.

    Formula:
        all listed values, all of an Int with no more than so many levels, else the ends and what lies at i / (levels -
        1) of the scale between them; their product in lexicographic order, the last parameter changing fastest

    Args:
        levels: how many values stand for a Float, and for an Int that has more.

    Source:
        full factorial designs: Fisher, "The design of experiments", 1935; why draws do better: Bergstra and Bengio,
        "Random search for hyper-parameter optimization", JMLR 2012.

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
        _checks.whole(self, 1, levels=self.levels)

    def __reduce__(self) -> tuple[type[Grid], tuple[int]]:
        return Grid, (self.levels,)  # how far it has come follows from the history

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
            _fresh.give_up(place.refusal(), taken)
        return found

    def count(self, space: Space) -> int | None:
        """How many combinations there are; None: more than are worth counting."""
        _refuse_large(space)
        walk = Walk(space, self.levels)
        found = sum(1 for _ in islice(walk, _COUNTED + 1))
        return None if walk.lost or found > _COUNTED else found


class _Place:
    """How far a walk has come: everything before is taken, or waits."""

    def __init__(self, space: Space, levels: int) -> None:
        self.space, self.levels, self.walk = space, levels, Walk(space, levels)
        self._steps = self._walked()
        self._skipped: set[_fresh.Label] = set()
        self._waiting: deque[Params] = deque()  # combinations that were proposed, and may not have been taken

    def _walked(self) -> Iterator[Params]:
        """The walk; one that loses patience before it finds anything begins again, at an allowed combination."""
        found = None
        for found in self.walk:
            yield found
        start = _drawn(self.space, self.levels) if found is None and self.walk.lost else None
        if start is not None:
            self.walk = Walk(self.space, self.levels, start=start)
            yield from self.walk

    def refusal(self) -> UsageError:
        """The error for a grid in which nothing more is found."""
        if all(p.size <= self.levels or not isinstance(p, Float | Int) for p in self.space.parameters.values()):
            return self.walk.refusal()
        cause = f"the listed values ({self.levels} of a number) miss the allowed part, or there is none"
        return self.walk.refusal(cause=cause, fix="more of them, search.Grid(levels=...), or another algorithm")

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


def _drawn(space: Space, levels: int) -> Params | None:
    """A listed combination that is allowed, the same every time; None where draws do not hit one."""
    generator = Key(0).generator("grid")
    listed = {n: list(p.grid(levels)) for n, p in space.parameters.items()}
    for _ in range(_DRAWS):
        values: Params = {}
        for name in space.ordered:
            if space.is_active(name, values):
                values[name] = listed[name][generator.integers(len(listed[name]))]
        if space.allows(values):
            return values
    return None


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
