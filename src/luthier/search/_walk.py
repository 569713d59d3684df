"""Every allowed combination of a space, lazily: whole branches are left out as soon as a predicate forbids them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

from luthier.errors import UsageError
from luthier.parameters import label
from luthier.space import Params, Predicate, Space

_WALK = 200_000


class _OpenError(Exception):
    """A predicate looked at a parameter that has no value yet."""


class _Part(dict[str, Any]):
    """The first parameters' values; whoever looks at the others, or at the whole, learns that they are open."""

    def __init__(self, values: Params, undecided: frozenset[str]) -> None:
        super().__init__(values)
        self.undecided, self.looked = undecided, False

    def _look(self, *_: Any, **__: Any) -> Any:
        self.looked = True
        raise _OpenError

    def __missing__(self, name: str) -> Any:
        return self._look() if name in self.undecided else self._absent(name)

    @staticmethod
    def _absent(name: str) -> Any:
        raise KeyError(name)

    def get(self, name: str, default: Any = None) -> Any:
        return self._look() if name in self.undecided else super().get(name, default)

    def __contains__(self, name: object) -> bool:
        return bool(self._look()) if name in self.undecided else super().__contains__(name)

    __iter__ = __len__ = __eq__ = __or__ = __ror__ = __reversed__ = __repr__ = _look
    keys = values = items = copy = pop = popitem = setdefault = _look
    __hash__ = None


def verdict(predicate: Predicate, values: Params, undecided: frozenset[str], absent: frozenset[str]) -> bool | None:
    """Whether a predicate holds whatever the open parameters become; None: that cannot be said yet.

    Args:
        predicate: of a space's ``where``.
        values: of the parameters that have one.
        undecided: names of those that may still get one.
        absent: names of those that are not active; a predicate that reads one does not apply.
    """
    part = _Part(values, undecided)
    try:
        allowed = bool(predicate(part))
    except KeyError as missing:
        return True if not part.looked and missing.args and missing.args[0] in absent else None
    except Exception:
        return None  # judged again with all values; a mistake shows then
    return None if part.looked else allowed


class Walk:
    """An iterator over allowed combinations, the last parameter changing fastest.

    Args:
        space: where to walk.
        levels: values per parameter that has more of them than can be listed.
        patience: how many forbidden branches in a row end the walk.
        start: a listed combination to begin with; each parameter's values then go round in a circle.
        until: ``time.monotonic()`` from which a forbidden branch ends the walk, too.

    Attributes:
        culprit: the predicate that forbade last, by its index.
        lost: whether patience ran out.
    """

    def __init__(
        self,
        space: Space,
        levels: int,
        patience: int = _WALK,
        start: Params | None = None,
        until: float = math.inf,
    ) -> None:
        self.space, self.levels, self.patience = space, levels, patience
        self.start, self.until = start or {}, until
        self.culprit, self.lost = 0, False
        self._forbidden = 0
        self._steps = self._from(0, {}, tuple(range(len(space.where))))

    def __iter__(self) -> Iterator[Params]:
        return self._steps

    def refusal(self, **details: str) -> UsageError:
        """The error for a walk that found nothing, or lost patience; see :meth:`luthier.space.Space.infeasible`."""
        got = f"{self._forbidden:,} listed combinations in a row, all forbidden"
        return self.space.infeasible(self.culprit, got, **details)

    def _from(self, depth: int, values: Params, rules: tuple[int, ...]) -> Iterator[Params]:
        space = self.space
        if depth == len(space.ordered):
            params = {n: values[n] for n in space.names if n in values}
            broken = space.broken(params) if space.where else None
            if broken is None:
                self._forbidden = 0
                yield params
            else:
                self._count(broken)
            return
        name = space.ordered[depth]
        if not space.is_active(name, values):
            yield from self._from(depth + 1, values, rules)
            return
        undecided = frozenset(space.ordered[depth + 1 :])
        for value in self._values(name):
            here = {**values, name: value}
            left, broken = self._judge(here, rules, undecided)
            if broken is None:
                yield from self._from(depth + 1, here, left)
            else:
                self._count(broken)
            if self.lost:
                return

    def _values(self, name: str) -> Iterable[Any]:
        """A parameter's listed values, from the start's on."""
        values = self.space[name].grid(self.levels)
        if name not in self.start:
            return values
        listed, first = list(values), label(self.start[name])
        at = next(i for i, v in enumerate(listed) if label(v) == first)
        return listed[at:] + listed[:at]

    def _judge(
        self, values: Params, rules: tuple[int, ...], undecided: frozenset[str]
    ) -> tuple[tuple[int, ...], int | None]:
        """The predicates that are still open, and the first that forbids."""
        if not rules or not undecided:
            return rules, None
        left, absent = [], frozenset(self.space.names) - undecided - values.keys()
        for i in rules:
            allowed = verdict(self.space.where[i], values, undecided, absent)
            if allowed is False:
                return rules, i
            if allowed is None:
                left.append(i)
        return tuple(left), None

    def _count(self, broken: int) -> None:
        self.culprit = broken
        self._forbidden += 1
        self.lost = self._forbidden >= self.patience or time.monotonic() > self.until
