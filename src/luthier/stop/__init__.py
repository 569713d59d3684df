"""Stop rules: pure functions that say which running trials are hopeless. One file is one rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from luthier import discover
from luthier.errors import UsageError
from luthier.objectives import Objectives
from luthier.trial import Trial


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


def diverged(trial: Trial, objectives: Objectives) -> str | None:
    """The reason to stop a trial whose newest report holds an objective that is NaN; else None."""
    newest = trial.reports[-1]
    lost = [n for n in objectives.names if math.isnan(newest.metrics.get(n, 0.0))]
    return f"{lost[0]} is NaN at step {newest.step}" if lost else None


def __getattr__(name: str) -> Any:
    return discover.attribute(__name__, name)
