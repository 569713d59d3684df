"""Repeats: the leaders of a finished search, evaluated again, so that their means can be told apart from luck."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from luthier import search
from luthier.search._standing import is_grid, standing
from luthier.space import Params
from luthier.store import View
from luthier.trial import Trial

if TYPE_CHECKING:
    from luthier.study.settings import Settings

LEADERS = 5
_BY = "repeat"


@dataclass(frozen=True)
class Repeat:
    """One trial to be evaluated again.

    Attributes:
        original: its number.
        params: its values.
    """

    original: int
    params: Params

    @property
    def view(self) -> View:
        """How the store records where the repeat comes from."""
        return View(_BY, (self.original,))


def originals(views: Mapping[int, View]) -> dict[int, int]:
    """Number of each repeat to the number of the trial that it repeats."""
    return {n: view.pending[0] for n, view in views.items() if view.by == _BY}


def plan(settings: Settings, trials: list[Trial], copies: Mapping[int, int]) -> list[Repeat]:
    """The repeats that are still to be run, one of each leader in turn.

    The leaders are the first five of the ranking as it was before any repeat, and with several objectives as many of
    the front; the same search gives the same leaders however often it is resumed.

    Args:
        settings: the study's.
        trials: all of its trials.
        copies: see :func:`originals`.
    """
    done = Counter(copies.values())
    searched = [t for t in trials if t.number not in copies]
    ranking = standing(settings.space, settings.objectives, searched, modelled=not is_grid(settings.algorithm)).ranking
    leaders = [t for t in ranking if settings.objectives.violation(t.metrics) <= 0][:LEADERS]
    turns = range(settings.replicate)
    return [Repeat(t.number, dict(t.params)) for turn in turns for t in leaders if turn >= done[t.number]]


def settings_for(settings: Settings, repeats: list[Repeat], known: int) -> Settings:
    """The settings of the run that evaluates the repeats and nothing else, after ``known`` trials."""
    return replace(
        settings,
        algorithm=search.get("random"),
        stop=None,
        first=(),
        repeats=tuple(repeats),
        budget=replace(settings.budget, trials=known + len(repeats), target={}),
    )
