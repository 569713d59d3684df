"""Sobol sequence."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.search import _fresh, _net
from luthier.space import Params, Space
from luthier.trial import Trial


class Sobol:
    """A scrambled Sobol sequence: covers the space more evenly than random draws.

    Trial k gets point k, whatever came before. Where the point is forbidden or tried, a random draw takes its place.

    When it helps: a first look at a space, sensitivity studies, many workers.
    When it hurts: wherever results of earlier trials could teach something.

    Source:
        Owen, "Randomly permuted (t,m,s)-nets and (t,s)-sequences", 1995; Joe and Kuo, "Constructing Sobol sequences
        with better two-dimensional projections", 2008.
    """

    def __init__(self) -> None:
        self._tried = _fresh.Tried()

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
        taken, found = self._tried.taken_in(space, history, pending), list[Params]()
        for i in range(key.trial, key.trial + n):
            params: Params | None = space.from_unit(_net.point(key.seed, i, space.width).tolist())
            if params is not None and (params in taken or not space.allows(params)):
                params = _fresh.draw(space, key.for_trial(i).generator("sobol"), taken)
            if params is None:
                break
            taken.add(params)
            found.append(params)
        return found


METHOD = Sobol
