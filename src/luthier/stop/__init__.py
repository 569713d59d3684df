"""Stop rules: pure functions that say which running trials are hopeless. One file is one rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from luthier import discover
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


def __getattr__(name: str) -> Any:
    return discover.attribute(__name__, name)
