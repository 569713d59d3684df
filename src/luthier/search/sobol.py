"""Sobol sequence."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.pareto import Array
from luthier.search import _fresh
from luthier.space import Params, Space
from luthier.trial import Trial

_BLOCK = 256


@lru_cache(maxsize=16)
def _points(seed: int, block: int, d: int) -> Array:
    """Points ``256 * block ...`` of the scrambled sequence, shape (256, d)."""
    from scipy.stats import qmc  # half a second to import: only where it is used

    sequence = qmc.Sobol(d, scramble=True, seed=Key(seed).integer("sobol"))
    if block:
        sequence.fast_forward(block * _BLOCK)
    return np.asarray(sequence.random(_BLOCK))


class Sobol:
    """A scrambled Sobol sequence: covers the space more evenly than random draws.

    Trial k gets point k, whatever came before. Where the point is forbidden or tried, a random draw takes its place.

    When it helps: a first look at a space, sensitivity studies, many workers.
    When it hurts: wherever results of earlier trials could teach something.

    Source:
        Owen, "Randomly permuted (t,m,s)-nets and (t,s)-sequences", 1995; scipy's generator.
    """

    def ask(
        self,
        space: Space,
        objectives: Objectives,
        history: Sequence[Trial],
        pending: Sequence[Trial],
        n: int,
        key: Key,
    ) -> list[Params]:
        """See :class:`luthier.search.Algorithm`."""
        seen, found, repeats = [*history, *pending], list[Params](), not _fresh.endless(space)
        for i in range(key.trial, key.trial + n):
            params: Params | None = space.from_unit(_points(key.seed, i // _BLOCK, space.width)[i % _BLOCK])
            taken = params is not None and repeats and (params in found or _fresh.tried(seen, params))
            if taken or (params is not None and not space.allows(params)):
                params = _fresh.draw(space, key.for_trial(i).generator("sobol"), seen, found)
            if params is None:
                break
            found.append(params)
        return found


METHOD = Sobol
