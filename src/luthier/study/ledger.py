"""A study's trials in memory, ordered for the driver's questions."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable
from dataclasses import replace

from luthier.trial import Leg, Status, Trial


def _number(trial: Trial) -> int:
    return trial.number


class Ledger:
    """Trials by number, and their legs by turn; none is ever removed.

    A turn is the place of a leg in the order in which the study started things. Where no trial ever pauses, each
    has one leg, whose turn is the trial's number.

    Args:
        trials: those of earlier runs; interrupted ones still as running.
    """

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        self._all: dict[int, Trial] = {t.number: t for t in trials}
        self._history = sorted((t for t in self._all.values() if t.finished), key=_number)
        self._paused = {t.number for t in self._all.values() if t.status is Status.PAUSED}
        self._legged = any(t.legs for t in self._all.values())
        self._stages: dict[int, list[Trial]] = {}  # number -> what it was at the end of each leg, if any has several
        self._open: set[int] = set()  # turns of the legs that have not ended
        self.turns = 0  # the next one
        self.version = 0  # how often a trial was put
        for trial in self._all.values():
            self._count(trial)
        self._settle(*self._all.values())

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
    def idle(self) -> int:
        """How many have ended or are paused."""
        return len(self._history) + len(self._paused)

    @property
    def paused(self) -> list[Trial]:
        """Those that are paused, by number."""
        return [self._all[n] for n in sorted(self._paused)]

    @property
    def unfinished(self) -> list[Trial]:
        """Those that run, by the turn at which they began to."""
        if self.idle == len(self._all):
            return []
        return sorted((t for t in self._all.values() if t.status is Status.RUNNING), key=lambda t: legs(t)[-1].turn)

    @property
    def last_turn(self) -> int:
        """The turn of the leg that was started last; -1: none was."""
        return max((legs(t)[-1].turn for t in self._all.values()), default=-1)

    @property
    def complete_below(self) -> int:
        """Every leg of an earlier turn has ended; turns that were passed over count as ended."""
        return min(self._open, default=self.turns)

    def put(self, trial: Trial) -> None:
        """Takes a trial's new state."""
        self.version += 1
        before = self._all.get(trial.number)
        self._all[trial.number] = trial
        if before is not None and before.finished:
            del self._history[bisect_left(self._history, trial.number, key=_number)]
        if trial.finished:
            insort(self._history, trial, key=_number)
        (self._paused.add if trial.status is Status.PAUSED else self._paused.discard)(trial.number)
        self._count(trial)
        if trial.legs and not self._legged:
            self._legged = True
            self._settle(*self._all.values())
        self._settle(trial)

    def skip(self) -> None:
        """Passes over a turn at which nothing could start."""
        self.turns += 1

    def hidden(self, turn: int, lag: int | None, running: Iterable[int]) -> tuple[int, ...]:
        """The turns of those earlier legs that what is decided at this turn may not see.

        Args:
            turn: of the decision.
            lag: legs of turns <= turn - lag are seen; None: all that have ended.
            running: numbers of the trials that run or wait to run again.
        """
        if lag is not None:
            return tuple(range(max(turn - lag + 1, 0), turn))
        return tuple(sorted(legs(self._all[n])[-1].turn for n in running))

    def seen(self, turn: int, hidden: Collection[int]) -> tuple[list[Trial], list[Trial]]:
        """What a proposal of this turn may see: the trials that have ended, and those that count as running.

        A trial whose last visible leg ended with a pause stands as if it had been stopped there. Running ones come
        without what they reported so far: reports come at moments of their own, and a proposal that depended on them
        could not be made again.
        """
        if not self._legged:
            early = self._history[: bisect_left(self._history, turn, key=_number)]
            old = {n for n in hidden if n in self._all and self._all[n].finished}
            history = [t for t in early if t.number not in old] if old else early
            return history, [_hidden(self._all[n]) for n in hidden if n in self._all]
        stages = {n: self._stage(n, turn, hidden) for n in sorted(self._all)}
        begun = [n for n, t in stages.items() if t is None and legs(self._all[n])[0].turn in hidden]
        return [t for t in stages.values() if t is not None], [_hidden(self._all[n]) for n in begun]

    def standing(self, lag: int | None) -> list[Trial]:
        """The trials as a promotion decided now may see them: those that may go on, and only they, are paused."""
        if lag is None:
            return [_ready(t, t) for t in self._all.values()]
        hidden = self.hidden(self.turns, lag, ())
        stages = ((t, self._stage(n, self.turns, hidden)) for n, t in self._all.items())
        return [_ready(trial, stage) for trial, stage in stages if stage is not None]

    def others(self, number: int, lag: int | None) -> list[Trial]:
        """The trials against which a running one is judged."""
        if lag is None:
            return [t for n, t in self._all.items() if n != number]
        turn = legs(self._all[number])[-1].turn
        return [t for t in self.seen(turn, self.hidden(turn, lag, ()))[0] if t.number != number]

    def _stage(self, number: int, turn: int, hidden: Collection[int]) -> Trial | None:
        """A trial at the end of its last leg that is earlier than a turn and not hidden."""
        for leg, stage in reversed(list(zip(legs(self._all[number]), self._stages.get(number, ()), strict=False))):
            if leg.turn < turn and leg.turn not in hidden:
                return stage
        return None

    def _count(self, trial: Trial) -> None:
        last = legs(trial)[-1]
        self.turns = max(self.turns, last.turn + 1)
        ended = trial.finished or last.step is not None
        (self._open.discard if ended else self._open.add)(last.turn)

    def _settle(self, *trials: Trial) -> None:
        """Keeps what trials were at the end of their legs."""
        for trial in trials if self._legged else ():
            stages = self._stages.setdefault(trial.number, [])
            for leg in legs(trial)[len(stages) :]:
                if leg.step is not None:
                    stages.append(trial.upto(leg.step))
                elif trial.finished:
                    stages.append(trial)


def legs(trial: Trial) -> tuple[Leg, ...]:
    """A trial's legs, also where none were written down."""
    return trial.legs or (Leg(trial.number),)


def _ready(trial: Trial, stage: Trial) -> Trial:
    """A trial's stage, marked as paused if the trial stands there now and may go on."""
    rests = trial.resting and stage.floor == trial.floor
    return replace(stage, status=Status.PAUSED) if rests else stage


def _hidden(trial: Trial) -> Trial:
    """A trial as it stood when it was proposed."""
    return Trial(trial.number, trial.params)
