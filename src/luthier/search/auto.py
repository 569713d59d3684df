"""The default: picks an algorithm by the space and the number of trials."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.search.bayes import Bayes
from luthier.space import Params, Space
from luthier.trial import Trial


class Auto:
    """The default: Bayesian search wherever its price is worth paying.

    When it helps: whenever there is no reason to choose something else.
    When it hurts: never by much.
    """

    def __init__(self) -> None:
        self._bayes = Bayes()

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
        return self._bayes.ask(space, objectives, history, pending, n, key)


METHOD = Auto
