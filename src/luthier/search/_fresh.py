"""Combinations that were not tried before, and the end of a space that has no more of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from luthier.pareto import Array
from luthier.search._encode import Encoding
from luthier.space import Params, Space
from luthier.trial import Trial

_DRAWS = 64
_WALK = 200_000


def endless(space: Space) -> bool:
    """Whether some always active parameter has more values than can be tried, so that draws do not repeat."""
    return any(math.isinf(p.size) and not space.conditions[n] for n, p in space.parameters.items())


def tried(trials: Iterable[Trial], params: Params) -> bool:
    """Whether a trial has these values already."""
    return any(t.params == params for t in trials)


def label(params: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Something hashable that tells combinations apart."""
    return tuple((name, repr(params[name])) for name in sorted(params))


def walk(space: Space, levels: int, patience: int = _WALK) -> Iterator[Params]:
    """Every allowed combination, lazily, the last parameter changing fastest.

    Args:
        space: where to walk.
        levels: values per parameter that has more of them than can be listed.
        patience: how many forbidden combinations in a row end the walk.
    """
    forbidden = 0
    for params in _combinations(space, levels, 0, {}):
        if space.allows(params):
            forbidden = 0
            yield params
        else:
            forbidden += 1
            if forbidden >= patience:
                return


def _combinations(space: Space, levels: int, depth: int, values: Params) -> Iterator[Params]:
    if depth == len(space.ordered):
        yield {n: values[n] for n in space.names if n in values}
        return
    name = space.ordered[depth]
    if not space.is_active(name, values):
        yield from _combinations(space, levels, depth + 1, values)
        return
    for value in space[name].grid(levels):
        yield from _combinations(space, levels, depth + 1, {**values, name: value})


def first(encoding: Encoding, ranked: Array, seen: Sequence[Trial], batch: Sequence[Params]) -> Params | None:
    """The first of some unit rows, shape (n, d), that is allowed and was not tried; None where there is none."""
    for row in ranked:
        params = encoding.params(row)
        if params not in batch and not tried(seen, params) and encoding.space.allows(params):
            return params
    return None


def draw(space: Space, generator: np.random.Generator, seen: Sequence[Trial], batch: Sequence[Params]) -> Params | None:
    """A uniform draw that was not tried before; None where the space is exhausted.

    Args:
        space: where to draw.
        generator: the stream to draw from.
        seen: trials that must not be repeated.
        batch: proposals that must not be repeated.

    Raises:
        UsageError: nothing in the space is allowed.
    """
    if endless(space):
        return space.draw(generator)
    for _ in range(_DRAWS):
        params = space.draw(generator)
        if params not in batch and not tried(seen, params):
            return params
    return _first_unseen(space, seen, batch)


def _first_unseen(space: Space, seen: Sequence[Trial], batch: Sequence[Params]) -> Params | None:
    known = {label(t.params) for t in seen} | {label(p) for p in batch}
    largest = max((p.size for p in space.parameters.values() if math.isfinite(p.size)), default=1)
    for params in walk(space, levels=int(min(largest, _WALK)) + len(known) + 2):
        if label(params) not in known:
            return params
    return None
