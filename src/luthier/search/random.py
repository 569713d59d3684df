"""Random search."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.search import _fresh, _memory
from luthier.space import Params, Space
from luthier.trial import Trial


class Random:
    """Independent uniform draws: the baseline that every other method has to beat.

    What is forbidden or was tried is drawn again. Results matter only where there are priors, to which they lend trust.

    When it helps: to see how hard a problem is, and for many cheap trials in parallel.
    When it hurts: wherever results of earlier trials could teach something.
    Price: 0.1 ms a proposal.

    Formula:
        x_j ~ (1 - w) U(0, 1) + w p_j, each parameter on its own scale (log, or equal stretches for listed values),
        p_j its prior if it has one, w = t 10 / (10 + n) after n trials, t from 0 to 1 by how well the priors predict
        the order of the first results; permutations and subsets uniformly

    Source:
        Bergstra and Bengio, "Random search for hyper-parameter optimization", JMLR 2012.
    """

    def __init__(self) -> None:
        self._memory: _memory.Memory | None = None

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
        memory = self._memory = _memory.recall(self._memory, space, objectives)
        belief, trust = memory.belief, memory.trust(history)
        taken = memory.taken_in(history, pending)

        def propose(i: int) -> Params | None:
            trial = key.trial + i
            generator, bend = key.for_trial(trial).generator("random"), belief.bend(trial, trust)
            guess = _fresh.suggested(belief, trial, generator, taken)
            return guess or _fresh.draw(space, generator, taken, bend)

        return _fresh.several(n, propose, taken)


METHOD = Random
