"""Grid search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from luthier.errors import UsageError
from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.search import _fresh
from luthier.space import Params, Space
from luthier.trial import Trial

_COUNTED = 20_000


@dataclass(frozen=True)
class Grid:
    """Every combination of listed values, in order, skipping what was tried; then it ends.

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
        """See :class:`luthier.search.Algorithm`; nothing is drawn, so the key does not matter."""
        known = {_fresh.label(t.params) for t in [*history, *pending]}
        unseen = (p for p in _fresh.walk(space, self.levels) if _fresh.label(p) not in known)
        found = list(islice(unseen, n))
        if not found and not known and n > 0:
            space.draw(key.generator("grid"))  # raises, and names the predicate, where nothing at all is allowed
        return found

    def count(self, space: Space) -> int | None:
        """How many combinations there are; None: more than are worth counting."""
        found = sum(1 for _ in islice(_fresh.walk(space, self.levels), _COUNTED + 1))
        return found if found <= _COUNTED else None


METHOD = Grid
