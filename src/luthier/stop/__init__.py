"""Stop rules: pure functions that say which running trials are hopeless. One file is one rule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

from luthier import discover
from luthier.errors import UsageError
from luthier.objectives import Objectives
from luthier.trial import Report, Trial


class StopRule(Protocol):
    """What every stop rule does."""

    def stops(self, trial: Trial, others: Sequence[Trial], objectives: Objectives) -> str | None:
        """Judges a trial right after a report.

        Args:
            trial: the running trial, its newest report included.
            others: every other trial of the study, running and finished.
            objectives: how curves compare, several objectives included.

        Returns:
            None to go on, or the reason to stop, in words.
        """
        ...


class Promoter(StopRule, Protocol):
    """A stop rule that may pause trials and let the best of them go on later, instead of stopping the others.

    A study asks it so where its attribute ``promote`` is true. Only :meth:`stops` is asked of the others.
    """

    promote: bool

    def pauses(self, trial: Trial, objectives: Objectives) -> str | None:
        """Judges a trial right after a report that did not stop it: None to go on, or why it waits, in words."""
        ...

    def promotes(self, trials: Sequence[Trial], objectives: Objectives, closing: bool = False) -> int | None:
        """The number of the paused trial that goes on next, or None.

        Args:
            trials: every trial of the study; those whose status is paused may go on.
            objectives: how curves compare, several objectives included.
            closing: no new trial will begin and none runs: the best must not wait for a field that never comes.
        """
        ...


def promoter(rule: StopRule | None) -> Promoter | None:
    """The rule, if it pauses and promotes; else None."""
    return cast(Promoter, rule) if getattr(rule, "promote", False) else None


def names() -> list[str]:
    """The stop rules there are."""
    return discover.names(__name__)


def get(rule: str | StopRule | None) -> StopRule | None:
    """The rule of that name with its default settings; an object or None is handed through.

    Raises:
        UsageError: no such name, or an object that has no ``stops``.
    """
    if rule is None:
        return None
    if isinstance(rule, str):
        made: StopRule = discover.load(__name__, rule, "stop rule")()
        return made
    if isinstance(rule, type) or not callable(getattr(rule, "stops", None)):
        raise UsageError(
            "the stop rule is neither a name nor an object with 'stops'",
            expected="one of " + ", ".join(names()) + ", or luthier.stop.ASHA(max_steps=10)",
            got=repr(rule),
            fix=f"{rule.__name__}()" if isinstance(rule, type) else None,
        )
    return rule


def crossed(rungs: Iterable[int], trial: Trial, objectives: Objectives) -> list[int]:
    """The rungs that a trial has passed with its newest report: all objectives were reported there or further on.

    Metrics may come at steps of their own, in any order.
    """
    before = max(_reached(trial.reports[:-1], objectives), trial.floor)
    return [r for r in rungs if before < r <= _reached(trial.reports, objectives)]


def _reached(reports: Sequence[Report], objectives: Objectives) -> int:
    """The last step that every objective got to; -1 where one of them was never reported."""
    last: dict[str, int] = {}
    for report in reversed(reports):
        for name in objectives.names:
            if name in report.metrics:
                last.setdefault(name, report.step)
        if len(last) == len(objectives.names):
            return min(last.values())
    return -1


def diverged(trial: Trial, objectives: Objectives) -> str | None:
    """The reason to stop a trial whose newest report holds an objective that is NaN; else None."""
    newest = trial.reports[-1]
    lost = [n for n in objectives.names if math.isnan(newest.metrics.get(n, 0.0))]
    return f"{lost[0]} is NaN at step {newest.step}" if lost else None


def __getattr__(name: str) -> Any:
    return discover.attribute(__name__, name)
