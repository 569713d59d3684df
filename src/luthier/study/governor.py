"""Bounds the share of wall time that goes into proposing: the algorithm is made cheaper, step by step, out loud."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from luthier.errors import UsageError
from luthier.search import Algorithm
from luthier.search._cheaper import ladder

T = TypeVar("T")

_FEW = 5  # proposals after which a level can be judged


@dataclass(frozen=True)
class Bound:
    """When proposing costs too much: all three at once.

    Attributes:
        share: part of the wall time, since the algorithm was last made cheaper.
        each: seconds that a proposal takes on average.
        total: seconds that all proposals took together.
    """

    share: float = 0.1
    each: float = 0.5
    total: float = 60.0

    @classmethod
    def of(cls, overhead: Any, deterministic: bool) -> Bound | None:
        """Reads ``overhead=``: "auto", a share that is to hold whatever a proposal costs, or None.

        What is proposed then depends on the clock, so that ``deterministic`` studies have no such bound.

        Raises:
            UsageError: neither of these, or a share for a deterministic study.
        """
        if overhead is None or (overhead == "auto" and deterministic):
            return None
        if overhead == "auto":
            return cls()
        if isinstance(overhead, bool) or not isinstance(overhead, int | float) or not 0 < overhead < 1:
            raise UsageError("'overhead' is no share", expected='0 < overhead < 1, "auto" or None', got=repr(overhead))
        if deterministic:
            raise UsageError(
                "'overhead' and 'deterministic' exclude each other",
                cause="how long a proposal takes is never twice the same",
                fix='leave overhead at "auto", which does nothing here',
            )
        return cls(float(overhead), 0.0, 1.0)


class Governor:
    """Asks the algorithm, or a cheaper one once it has cost too much.

    Args:
        algorithm: what the study was given.
        bound: see :class:`Bound`; None: none.
        say: told what changes.
    """

    def __init__(self, algorithm: Algorithm, bound: Bound | None, say: Callable[[str], None]) -> None:
        self.level = 0
        self._ladder = ladder(algorithm)
        self._bound = bound
        self._say = say
        self._total = 0.0
        self._count, self._spent, self._since = 0, 0.0, 0.0
        self._told = False

    def ask(self, number: int, propose: Callable[[Algorithm], T]) -> tuple[T, int]:
        """What the algorithm of the present level proposes for a trial, and the level."""
        level, began = self.level, time.perf_counter()
        found = propose(self._ladder[level][1])
        self._count += 1
        self._since = self._since or began
        self._spent += time.perf_counter() - began
        self._judge(number)
        return found, level

    def _judge(self, number: int) -> None:
        bound, wall = self._bound, time.perf_counter() - self._since
        if bound is None or self._count < _FEW:
            return
        too_much = self._spent > bound.share * wall and self._spent > bound.each * self._count
        if not too_much or self._total + self._spent <= bound.total:
            return
        cost = f"proposing took {self._spent / wall:.0%} of the time, {self._spent / self._count:.2g} s a proposal"
        if self.level + 1 < len(self._ladder):
            self.level += 1
            self._say(f"{cost} (bound: {bound.share:.0%}): from trial {number + 1} on, {self._ladder[self.level][0]}")
        elif not self._told:
            self._told = True
            self._say(f"{cost} (bound: {bound.share:.0%}), and nothing cheaper is known")
        self._total += self._spent
        self._count, self._spent, self._since = 0, 0.0, 0.0


def at(steps: Sequence[tuple[str, Algorithm]], level: int) -> Algorithm:
    """The algorithm of a level that is known from a store; the cheapest where there are not so many."""
    return steps[min(max(level, 0), len(steps) - 1)][1]
