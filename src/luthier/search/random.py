"""Random search."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.space import Params, Space
from luthier.trial import Trial


class Random:
    """Independent uniform draws: the baseline that every other method has to beat.

    Source:
        Bergstra and Bengio, "Random search for hyper-parameter optimization", JMLR 2012.
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
        return [space.draw(key.for_trial(key.trial + i).generator("random")) for i in range(n)]


METHOD = Random
