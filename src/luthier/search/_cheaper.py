"""Which algorithm stands in for one that takes too long to think."""

from __future__ import annotations

from collections.abc import Callable

from luthier.search import Algorithm
from luthier.search.auto import Auto
from luthier.search.bayes import Bayes
from luthier.search.bayes.maximise import Effort
from luthier.search.random import Random
from luthier.search.tpe import TPE

_LIGHT = Effort(uniform=128, near=64, starts=2, steps=6, rounds=1, refits=4)


def ladder(algorithm: Algorithm) -> list[tuple[str, Algorithm]]:
    """The algorithm, then ever cheaper ones, each with a few words on what it does.

    An algorithm of one's own takes part with a method ``cheaper()`` that gives the next one, or None.
    """
    steps: list[tuple[str, Algorithm]] = [("the algorithm itself", algorithm)]
    own: Callable[[], Algorithm | None] | None = getattr(algorithm, "cheaper", None)
    while callable(own) and (found := own()) is not None:
        steps.append((f"{type(found).__name__} proposes", found))
        own = getattr(found, "cheaper", None)
    if type(algorithm) is Bayes:
        light: Algorithm = Bayes(algorithm.initial, _LIGHT)
        steps.append(("fewer candidates are looked at and the model is fitted more rarely", light))
    if type(algorithm) is Auto:
        steps.append(("fewer candidates are looked at and the model is fitted more rarely", Auto(_LIGHT)))
    if type(algorithm) in (Bayes, Auto):
        steps.append(("TPE proposes", TPE()))
    if type(algorithm) in (Bayes, Auto, TPE):
        steps.append(("proposals are drawn at random", Random()))
    return steps
