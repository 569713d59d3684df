"""Search algorithms: pure functions from a study's history to proposals. One file is one algorithm.

To add one, write a file here whose ``METHOD`` is a class with :meth:`Algorithm.ask`; names, tests, the
command line and the methods page find it by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from luthier import discover
from luthier.errors import UsageError
from luthier.keys import Key
from luthier.objectives import Objectives
from luthier.space import Params, Space
from luthier.trial import Trial


class Algorithm(Protocol):
    """What every search algorithm does."""

    def ask(
        self,
        space: Space,
        objectives: Objectives,
        history: Sequence[Trial],
        pending: Sequence[Trial],
        n: int,
        key: Key,
    ) -> list[Params]:
        """Proposes the next parameters to try.

        Args:
            space: where to search.
            objectives: what is wanted.
            history: finished trials, by number: complete, stopped and failed ones.
            pending: trials that still run.
            n: how many proposals are wanted.
            key: random streams; its trial number is that of the first proposal.

        Returns:
            at most ``n`` allowed combinations of active parameters; fewer where the space is exhausted, or (with a
            warning) where nothing more that its ``where`` allows can be found.
        """
        ...


def names() -> list[str]:
    """The algorithms there are."""
    return discover.names(__name__)


def get(algorithm: str | Algorithm) -> Algorithm:
    """The algorithm of that name with its default settings; an object is handed through.

    Raises:
        UsageError: no such name, or an object that has no ``ask``.
    """
    if isinstance(algorithm, str):
        made: Algorithm = discover.load(__name__, algorithm, "algorithm")()
        return made
    if isinstance(algorithm, type) or not callable(getattr(algorithm, "ask", None)):
        raise UsageError(
            "the algorithm is neither a name nor an object with 'ask'",
            expected="one of " + ", ".join(names()) + ", or luthier.search.Bayes(...)",
            got=repr(algorithm),
            fix=f"{algorithm.__name__}()" if isinstance(algorithm, type) else None,
        )
    return algorithm


def __getattr__(name: str) -> Any:
    return discover.attribute(__name__, name)
