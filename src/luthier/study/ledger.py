"""A study's trials in memory, ordered for the driver's questions."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import replace

from luthier.trial import Status, Trial


def _number(trial: Trial) -> int:
    return trial.number


class Ledger:
    """Trials by number; none is ever removed.

    Args:
        trials: those of earlier runs; interrupted ones still as running.
    """

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        self._all: dict[int, Trial] = {t.number: t for t in trials}
        self._history = sorted((t for t in self._all.values() if t.finished), key=_number)
        self._complete_below = 0
        self._advance()

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, number: int) -> Trial:
        return self._all[number]

    @property
    def trials(self) -> list[Trial]:
        """All, by number."""
        return [self._all[n] for n in sorted(self._all)]

    @property
    def finished(self) -> int:
        """How many have ended."""
        return len(self._history)

    @property
    def unfinished(self) -> list[Trial]:
        """Those that have not ended, by number."""
        if len(self._history) == len(self._all):
            return []
        return [t for t in self.trials if not t.finished]

    @property
    def complete_below(self) -> int:
        """Every trial with a lower number has ended."""
        return self._complete_below

    def put(self, trial: Trial) -> None:
        """Takes a trial's new state."""
        self._all[trial.number] = trial
        if trial.finished:
            insort(self._history, trial, key=_number)
            self._advance()

    def history(self, number: int, lag: int | None) -> list[Trial]:
        """The finished trials that the proposal of this number may see."""
        if lag is None:
            return list(self._history)
        return self._history[: bisect_left(self._history, number - lag + 1, key=_number)]

    def pending(self, number: int, lag: int | None, running: Sequence[int]) -> list[Trial]:
        """The trials that count as running for the proposal of this number, without what they reported so far.

        Reports come at moments of their own; a proposal that depended on them could not be made again.
        """
        if lag is None:
            return [_hidden(self._all[n]) for n in sorted(running)]
        return [_hidden(self._all[n]) for n in range(max(number - lag + 1, 0), number) if n in self._all]

    def others(self, number: int, lag: int | None) -> list[Trial]:
        """The trials against which a running one is judged."""
        if lag is None:
            return [t for n, t in self._all.items() if n != number]
        return self.history(number, lag)

    def _advance(self) -> None:
        while self._complete_below in self._all and self._all[self._complete_below].finished:
            self._complete_below += 1


def _hidden(trial: Trial) -> Trial:
    """A trial as it stood when it was proposed."""
    return replace(trial, status=Status.RUNNING, metrics={}, reports=(), cause=None, started=0.0, ended=None)
