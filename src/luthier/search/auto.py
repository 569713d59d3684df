"""The default: picks an algorithm by the space, the objectives and the number of trials."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.parameters import Structure
from luthier.search.bayes import Bayes
from luthier.search.bayes.maximise import Effort
from luthier.search.cmaes import CMAES
from luthier.search.nsga2 import NSGA2
from luthier.search.tpe import TPE
from luthier.space import Choice, Params, Space
from luthier.trial import Trial

_MANY = 400


class Auto:
    """The default: Bayesian search for the first 400 trials, then what costs less and takes the results further.

    After that NSGA-II for several objectives, CMA-ES where most parameters are numbers that are always active, TPE
    elsewhere; all of them start from the whole history.

    When it helps: whenever there is no reason to choose something else.
    When it hurts: trials of milliseconds, permutations of more than some fifty items; name "tpe", "nsga2", "cmaes" or
    "random" for those.
    Price: that of "bayes", then of what follows it.

    Formula:
        n < 400: bayes; else nsga2 (two objectives or more), tpe (more than a third of the parameters are choices,
        permutations, subsets or conditional), cmaes (the rest)

    Args:
        effort: how hard the Bayesian search looks for the best proposal; None: as usual.

    Source:
        a rule of this library's own, by its measurements (bench/search); the methods name theirs.
    """

    def __init__(self, effort: Effort | None = None) -> None:
        self._bayes, self._many, self._tpe, self._numbers = Bayes(effort=effort), NSGA2(), TPE(), CMAES()

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
        chosen = self._bayes if len(history) < _MANY else self._late(space, objectives)
        return chosen.ask(space, objectives, history, pending, n, key)

    def _late(self, space: Space, objectives: Objectives) -> NSGA2 | CMAES | TPE:
        if len(objectives.names) > 1:
            return self._many
        loose = [n for n, p in space.parameters.items() if isinstance(p, Choice | Structure) or space.conditions[n]]
        return self._tpe if 3 * len(loose) > len(space) else self._numbers


METHOD = Auto
