"""Combinations that were not tried before, and the end of a space that has no more of them."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from luthier.errors import UsageError
from luthier.pareto import Array
from luthier.search._belief import Belief, Bend
from luthier.search._encode import Encoding
from luthier.search._moves import around
from luthier.search._walk import Walk
from luthier.space import Params, Space
from luthier.trial import Trial

_DRAWS = 64
_MORE = 256  # draws in a space that is too large to walk through
_WALKED = 200_000
_PARENTS = 256  # known combinations that are moved
_MOVES = 2_000
_SECONDS = 60.0  # in which something allowed is to be found, if there is nothing yet
_SLOW = {
    "cause": "predicates too slow to be asked often, contradictory constraints, or an allowed part too small to hit",
    "fix": "predicates of microseconds; wider constraints, or bounds narrowed to the allowed part",
}

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
        trials: finished and pending ones, whether or not their labels were read.
    """

    def __init__(self, tried: set[Label], more: set[Label], *trials: Sequence[Trial]) -> None:
        self._tried, self._more, self._trials = tried, more, trials
        self._added: list[Params] = []

    @property
    def known(self) -> list[Mapping[str, Any]]:
        """Combinations that were allowed when they were proposed."""
        return [*(t.params for trials in self._trials for t in trials), *self._added]

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
        self._added.append(params)


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
        return Taken(self._labels, {label(t.params) for t in pending}, history, pending)

    def taken_in(self, space: Space, history: Sequence[Trial], pending: Sequence[Trial]) -> Taken:
        """The same, for those that only draw: where draws do not repeat, nothing is read."""
        return Taken(set(), set(), history, pending) if endless(space) else self.taken(history, pending)


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


def several(n: int, propose: Callable[[int], Params | None], taken: Taken) -> list[Params]:
    """So many proposals, each of them taken from then on; fewer where there are no more.

    Args:
        n: how many are wanted.
        propose: from a number below n to a combination that is not taken, or None.
        taken: what must not be repeated.
    """
    found: list[Params] = []
    for i in range(n):
        params = propose(i)
        if params is None:
            break
        taken.add(params)
        found.append(params)
    return found


def draw(space: Space, generator: np.random.Generator, taken: Taken, bend: Bend | None = None) -> Params | None:
    """A uniform draw that is not taken; None where the space is exhausted.

    Where nothing allowed is hit by chance, moves from the combinations that are known take its place. Where they find
    nothing either, it warns and gives None.

    Args:
        space: where to draw.
        generator: the stream to draw from.
        taken: what must not be repeated.
        bend: turns uniform rows into believed ones.

    Raises:
        UsageError: nothing in the space is allowed, or nothing that could be found, and nothing is known. A minute
            decides it where predicates are slow; where something is known, no clock changes what is proposed.
    """
    refusal: UsageError | None = None
    until = math.inf if taken.known else time.monotonic() + _SECONDS
    for way in (_drawn,) if endless(space) else (_drawn, _first_unseen):
        try:
            found, refusal = way(space, generator, taken, bend, until), None
        except UsageError as lost:
            if time.monotonic() > until:
                raise UsageError(lost.what, **{**lost.details, **_SLOW}) from None
            found, refusal = _moved(space, generator, taken), lost
        if found is not None:
            return found
    if refusal is not None:
        give_up(refusal, taken)
    return None


def give_up(refusal: UsageError, taken: Taken) -> None:
    """The end of a search that found nothing, though not all has been looked at.

    Raises:
        UsageError: the refusal, where nothing was found before either.
    """
    count = len(taken.known)
    if not count:
        raise refusal
    got, expected = refusal.details["got"], refusal.details["expected"]
    warnings.warn(f"no more than {count:,} allowed combinations were found: {got}; wanted: {expected}", stacklevel=2)


def _drawn(
    space: Space, generator: np.random.Generator, taken: Taken, bend: Bend | None, until: float
) -> Params | None:
    """A uniform draw; None where many of them are all taken."""
    if endless(space):
        return space.draw(generator, bend, until)
    for _ in range(_MORE if _combinations(space) > _WALKED else _DRAWS):
        params = space.draw(generator, bend, until)
        if params not in taken:
            return params
    return None


def _moved(space: Space, generator: np.random.Generator, taken: Taken) -> Params | None:
    """A move from a known combination that is allowed and new; None where none of them is."""
    known = [p for p in taken.known if all(n in space.parameters for n in p)]
    if not known:
        return None
    encoding, seen = Encoding(space), {label(p) for p in known}
    chosen = generator.permutation(len(known))[:_PARENTS]
    parents = np.array([encoding.rows(known[i]) for i in chosen])
    for row in around(encoding, parents, _MOVES, generator):
        params = encoding.params(row)
        if label(params) not in seen and space.allows(params):
            return params
    return None


def _combinations(space: Space) -> float:
    """How many there are if every parameter is active."""
    return math.prod(float(p.size) for p in space.parameters.values())


def _first_unseen(
    space: Space, generator: np.random.Generator, taken: Taken, bend: Bend | None, until: float
) -> Params | None:
    """The first combination of a walk that is not taken; None where there is none."""
    largest = max((p.size for p in space.parameters.values() if math.isfinite(p.size)), default=1)
    walk = Walk(space, levels=int(min(largest, _WALKED)) + len(taken) + 2, until=until)
    for params in walk:
        if params not in taken:
            return params
    if walk.lost or not len(taken):
        raise walk.refusal()
    return None
