"""Combinations that were not tried before, and the end of a space that has no more of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from luthier.errors import UsageError
from luthier.pareto import Array
from luthier.search._belief import Belief, Bend
from luthier.search._encode import Encoding
from luthier.search._walk import Walk
from luthier.space import Params, Space
from luthier.trial import Trial

_DRAWS = 64
_MORE = 256  # draws in a space that is too large to walk through
_WALKED = 200_000

Label = tuple[tuple[str, str], ...]


def endless(space: Space) -> bool:
    """Whether some always active parameter has more values than can be tried, so that draws do not repeat."""
    return any(math.isinf(p.size) and not space.conditions[n] for n, p in space.parameters.items())


def label(params: Mapping[str, Any]) -> Label:
    """Something hashable that tells combinations apart."""
    return tuple((n, repr(v.item() if isinstance(v, np.generic) else v)) for n, v in sorted(params.items()))


class Taken:
    """What must not be proposed again.

    Args:
        tried: labels of a history; not changed.
        more: further labels: pending trials, and proposals of the same batch.
    """

    def __init__(self, tried: set[Label], more: set[Label]) -> None:
        self._tried, self._more = tried, more

    def __contains__(self, params: Params) -> bool:
        name = label(params)
        return name in self._more or name in self._tried

    def __len__(self) -> int:
        return len(self._tried) + len(self._more)

    def holds(self, labels: set[Label]) -> bool:
        """Whether all of them are taken."""
        return all(name in self._tried or name in self._more for name in labels)

    def add(self, params: Params) -> None:
        """Takes one more."""
        self._more.add(label(params))


class Tried:
    """The combinations of a history, each read once however often the history is asked for."""

    def __init__(self) -> None:
        self._history: list[Trial] = []
        self._labels: set[Label] = set()

    def taken(self, history: Sequence[Trial], pending: Sequence[Trial]) -> Taken:
        """What these trials have taken."""
        listed, old = list(history), self._history
        if len(old) > len(listed) or listed[: len(old)] != old:
            old, self._labels = [], set()
        self._labels.update(label(t.params) for t in listed[len(old) :])
        self._history = listed
        return Taken(self._labels, {label(t.params) for t in pending})

    def taken_in(self, space: Space, history: Sequence[Trial], pending: Sequence[Trial]) -> Taken:
        """The same, for those that only draw: where draws do not repeat, nothing is read."""
        return Taken(set(), set()) if endless(space) else self.taken(history, pending)


def first(encoding: Encoding, ranked: Array, taken: Taken) -> Params | None:
    """The first of some unit rows, shape (n, d), that is allowed and not taken; None where there is none."""
    for row in ranked:
        params = encoding.params(row)
        if params not in taken and encoding.space.allows(params):
            return params
    return None


def suggested(belief: Belief, index: int, generator: np.random.Generator, taken: Taken) -> Params | None:
    """What is believed to be worth trying as the trial of this number; None: nothing, or it cannot be proposed."""
    params = belief.suggest(index, generator)
    if params is None or params in taken or not belief.space.allows(params):
        return None
    return params


def draw(space: Space, generator: np.random.Generator, taken: Taken, bend: Bend | None = None) -> Params | None:
    """A uniform draw that is not taken; None where the space is exhausted.

    Args:
        space: where to draw.
        generator: the stream to draw from.
        taken: what must not be repeated.
        bend: turns uniform rows into believed ones.

    Raises:
        UsageError: nothing in the space is allowed, or nothing that could be found.
    """
    if endless(space):
        return space.draw(generator, bend)
    many = _combinations(space) > _WALKED
    try:
        for _ in range(_MORE if many else _DRAWS):
            params = space.draw(generator, bend)
            if params not in taken:
                return params
    except UsageError:
        found = _first_unseen(space, taken)
        if found is None and not len(taken):
            raise
        return found
    return _first_unseen(space, taken)


def _combinations(space: Space) -> float:
    """How many there are if every parameter is active."""
    return math.prod(p.size for p in space.parameters.values())


def _first_unseen(space: Space, taken: Taken) -> Params | None:
    largest = max((p.size for p in space.parameters.values() if math.isfinite(p.size)), default=1)
    walk = Walk(space, levels=int(min(largest, _WALKED)) + len(taken) + 2)
    for params in walk:
        if params not in taken:
            return params
    if walk.lost:
        raise walk.refusal()
    return None
