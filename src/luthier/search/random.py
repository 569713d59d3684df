"""Random search."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.search import _belief, _fresh
from luthier.space import Params, Space
from luthier.trial import Trial


class Random:
    """Independent uniform draws: the baseline that every other method has to beat.

    What is forbidden or was tried is drawn again. Results do not matter, so neither does a wrong prior: it fades.

    When it helps: to see how hard a problem is, and for many cheap trials in parallel.
    When it hurts: wherever results of earlier trials could teach something.
    Price: 0.1 ms a proposal.

    Formula:
        x_j ~ (1 - w) U(0, 1) + w p_j, each parameter on its own scale (log, or equal stretches for listed values),
        p_j its prior if it has one, w = 10 / (10 + n) after n trials; permutations and subsets uniformly

    Source:
        Bergstra and Bengio, "Random search for hyper-parameter optimization", JMLR 2012.
    """

    def __init__(self) -> None:
        self._tried = _fresh.Tried()
        self._belief: _belief.Belief | None = None

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
        belief = self._belief = _belief.recall(self._belief, space)
        taken, found = self._tried.taken_in(space, history, pending), list[Params]()
        for i in range(n):
            generator, bend = key.for_trial(key.trial + i).generator("random"), belief.bend(key.trial + i)
            params = _fresh.suggested(belief, key.trial + i, generator, taken)
            params = params or _fresh.draw(space, generator, taken, bend)
            if params is None:
                break
            taken.add(params)
            found.append(params)
        return found


METHOD = Random
