"""The tuning loop: asks, submits, judges, writes. The only place where search, stop, store and run meet."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from luthier import run
from luthier.errors import LuthierError, ObjectiveError
from luthier.keys import Key
from luthier.progress import Outlook, Progress
from luthier.run import Job, Outcome, Work
from luthier.search._fresh import label
from luthier.search._threads import OneThread
from luthier.space import Params
from luthier.stop import promoter
from luthier.store import Store, View, clear
from luthier.study.governor import Governor
from luthier.study.ledger import Ledger
from luthier.study.pulse import Heart, Interrupts, quietly
from luthier.study.settings import Settings
from luthier.trial import Leg, Report, Status, Trial

_PATIENCE = 60.0  # seconds of silence after which a driver on another machine counts as dead
_WAIT = 0.5  # seconds that the loop sleeps at most
_STARTS = 5  # a trial that took its driver with it so often is not started again


@dataclass
class Run:
    """What one run of a study works with.

    Attributes:
        settings: what the user asked for.
        store: where everything is written.
        name: the study's name.
        ledger: its trials so far.
        progress: what people see.
        folder: where checkpoints live.
        copies: numbers of the trials that are repeats; no rule stops them, and no target counts them.
    """

    settings: Settings
    store: Store
    name: str
    ledger: Ledger
    progress: Progress
    folder: Path
    copies: Collection[int] = ()


class Driver:
    """Runs a study until its budget is used up. It is the one writer; executors only evaluate.

    Args:
        run: see :class:`Run`.
        told: called with each finished trial.
    """

    def __init__(self, run_: Run, told: Callable[[Trial], object]) -> None:
        self._run = run_
        self._settings = run_.settings
        self._ledger = run_.ledger
        self._told = told
        self._one_thread = OneThread()
        self._governor = Governor(self._settings.algorithm, self._settings.overhead, run_.progress.say)
        self._token = uuid.uuid4().hex
        self._queue = deque(self._ledger.unfinished)  # interrupted earlier: they run again
        tried = {label(t.params) for t in self._ledger.trials}
        self._first = deque(p for p in self._settings.first if label(p) not in tried)
        self._repeats = deque(self._settings.repeats)
        self._running: dict[int, float] = {}  # number -> monotonic start
        self._halted: dict[int, str] = {}  # trials that were told to pause, and why
        self._promoter = promoter(run_.settings.stop)
        self._steps = sum(len(_kept(t).reports) for t in self._ledger.trials)
        self._exhausted = False
        self._enough = any(self._reached(t) for t in self._ledger.trials)
        self._halt = False  # by a callback
        self._over = False
        self._error: LuthierError | None = None
        self._interrupts = Interrupts(self._heard_ctrl_c)
        self._spent_before = 0.0
        self._began = time.monotonic()

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the run before its budget did."""
        return self._interrupts.count > 0 and not self._over

    @property
    def spent(self) -> float:
        """Seconds that the study has been driven, earlier runs included."""
        return self._spent_before + time.monotonic() - self._began

    @property
    def fulfilled(self) -> bool:
        """Whether the search came to its end by itself: all trials done, the target reached, or the space exhausted."""
        return self._over and not self._halt and not self._spent_up()

    def stop(self) -> None:
        """Starts no more trials."""
        self._enough = self._halt = True

    def drive(self) -> None:
        """Runs to the end.

        Raises:
            StoreError: the study is driven by somebody else, or can no longer be written.
            ObjectiveError: a trial failed and ``on_error`` is "raise".
            KeyboardInterrupt: Ctrl-C was pressed twice; the running trials will run again on resume.
        """
        store, name = self._run.store, self._run.name
        store.claim(name, self._token, _PATIENCE)
        state = store.state(name)
        self._spent_before = state.spent if state else 0.0
        self._began = time.monotonic()
        heart = Heart(lambda: store.beat(name, self._token, self.spent))
        try:
            with self._interrupts:
                heart.start()
                self._loop()
        finally:
            heart.stop()
            quietly(lambda: store.beat(name, self._token, self.spent))
            quietly(lambda: store.release(name, self._token))

    def _loop(self) -> None:
        settings, progress = self._settings, self._run.progress
        work = Work(settings.objective, settings.objectives, settings.pool.workers, settings.pool.limits)
        executor = run.get(settings.pool.executor)(work, self)
        total, timeout = self._total(), settings.budget.timeout
        past = [t for t in self._ledger.trials if t.status is not Status.RUNNING]
        progress.open(Outlook(self._run.name, settings.objectives, total, timeout, self.spent), past)
        try:
            while True:
                while executor.free > 0 and (job := self._next()) is not None:
                    executor.submit(job)
                if not self._running:
                    break
                executor.wait(_WAIT)
                if self._error is not None:
                    raise self._error
            self._over = self._satisfied()
            for trial in self._ledger.paused if self._over else ():
                cause = f"paused at step {trial.floor} and not promoted before the study ended"
                self._end(trial, Outcome(Status.STOPPED, cause=cause))
        finally:
            executor.close()
            progress.close()

    def _total(self) -> int | None:
        """How many trials there will be at most, as far as is known."""
        count = getattr(self._settings.algorithm, "count", None)
        whole = count(self._settings.space) if callable(count) else None
        known = [n for n in (self._settings.budget.trials, whole) if n is not None]
        return min(known, default=None)

    # what starts next

    def _next(self) -> Job | None:
        """The next trial to start, written to the store; None if none may start now."""
        if self._ends():
            return None
        while self._queue:
            if job := self._start(_kept(self._queue.popleft()), View()):
                return job
        ledger, lag = self._ledger, self._settings.pool.lag
        while lag is None or ledger.complete_below > ledger.turns - lag:
            if job := self._promoted() or self._new():
                return job
            still = not self._running if lag is None else ledger.last_turn <= ledger.turns - lag
            if still:  # nothing more will be known
                return self._promoted(closing=True)
            if lag is None or self._promoter is None:
                return None
            ledger.skip()  # whoever rests may go on once later turns are seen
        return None

    def _ends(self) -> bool:
        """Whether no more trials start."""
        return self._enough or self._spent_up() or self._interrupts.count > 0

    def _satisfied(self) -> bool:
        """Whether the study has all that was asked for; only asked when nothing runs."""
        if self._enough or self._spent_up():
            return True
        full = self._exhausted or self._full()
        return full and not self._queue and self._best_resting(closing=True) is None

    def _full(self) -> bool:
        """Whether no new trials may begin."""
        total = self._settings.budget.trials
        return total is not None and len(self._ledger) >= total

    def _late(self) -> bool:
        timeout = self._settings.budget.timeout
        return timeout is not None and self.spent >= timeout

    def _spent_up(self) -> bool:
        """Whether running trials should end, too."""
        return self._late() or self._walked()

    def _walked(self) -> bool:
        steps = self._settings.budget.steps
        return steps is not None and self._steps >= steps

    def _best_resting(self, closing: bool = False) -> int | None:
        """The paused trial that may go on, by its number."""
        if self._promoter is None:
            return None
        standing = self._ledger.standing(self._settings.pool.lag)
        return self._promoter.promotes(standing, self._settings.objectives, closing)

    def _promoted(self, closing: bool = False) -> Job | None:
        """A paused trial that goes on."""
        number = self._best_resting(closing)
        if number is None:
            return None
        trial = self._ledger[number]
        legs = (*trial.legs, Leg(self._ledger.turns))
        return self._start(replace(trial, status=Status.RUNNING, cause=None, legs=legs), View())

    def _new(self) -> Job | None:
        """A trial that did not exist before."""
        if self._full() or self._exhausted:
            return None
        number, turn = len(self._ledger), self._ledger.turns
        params, view = self._propose(number, turn)
        if params is None:
            return None
        legs = (Leg(turn),) if self._promoter is not None or turn != number else ()
        clear(self._run.folder / str(number))  # of a study of that name that was deleted
        return self._start(Trial(number, params, started=time.time(), legs=legs), view)

    def _propose(self, number: int, turn: int) -> tuple[Params | None, View]:
        if self._repeats:
            again = self._repeats.popleft()
            return again.params, again.view
        if self._first:
            return self._first.popleft(), View("user")
        settings = self._settings
        hidden = self._ledger.hidden(turn, settings.pool.lag, [*self._running, *(t.number for t in self._queue)])
        history, pending = self._ledger.seen(turn, hidden)
        key = Key(settings.seed, number)
        with self._one_thread():
            found, level = self._governor.ask(
                number, lambda a: a.ask(settings.space, settings.objectives, history, pending, 1, key)
            )
        self._exhausted = not found
        return (found[0] if found else None), View(pending=hidden, level=level)

    def _start(self, trial: Trial, view: View) -> Job | None:
        """Sends a trial on its way: a new one, one that goes on from its pause, or one that was interrupted."""
        number = trial.number
        self._ledger.put(trial)
        starts = self._run.store.start(self._run.name, self._token, self._dumped(trial), view)
        if starts > _STARTS:
            cause = f"it was begun {_STARTS} times, and each time its driver died or was interrupted"
            self._end(trial, Outcome(Status.FAILED, cause=cause))
            return None
        self._running[number] = time.monotonic()
        self._run.progress.update(trial)
        seed = Key(self._settings.seed, number).integer("objective")
        return Job(number, trial.params, seed, str(self._run.folder / str(number)), trial.floor)

    # what executors tell

    def reported(self, number: int, report: Report) -> str | None:
        """See :class:`luthier.run.Desk`."""
        known = self._ledger[number]
        if number in self._halted:
            return self._halted[number]
        if self._walked():
            return "the study's steps were used up"  # by others, while this one ran: not one more counts
        if report.step <= known.floor:
            return None  # it was told before the pause
        trial = known.with_report(report)
        whole = next(r for r in reversed(trial.reports) if r.step == report.step)
        self._run.store.report(self._run.name, self._token, number, whole)
        self._ledger.put(trial)
        self._run.progress.update(trial)
        self._steps += len(trial.reports) - len(known.reports)
        if self._spent_up():
            return "the study's time was up" if self._late() else "the study's steps were used up"
        return self._judged(trial)

    def _judged(self, trial: Trial) -> str | None:
        """Why a trial stops or pauses now, or None."""
        rule, objectives, lag = self._settings.stop, self._settings.objectives, self._settings.pool.lag
        if rule is None or trial.number in self._run.copies:
            return None
        reason = rule.stops(trial, self._ledger.others(trial.number, lag), objectives)
        if reason is not None or self._promoter is None:
            return reason
        reason = self._promoter.pauses(trial, objectives)
        if reason is None:
            return None
        if lag is None:  # it may go on at once, where it would be the next to be promoted
            others = [t for t in self._ledger.standing(None) if t.number != trial.number]
            if self._promoter.promotes([_rested(trial), *others], objectives) == trial.number:
                return None
        self._halted[trial.number] = reason
        return reason

    def finished(self, number: int, outcome: Outcome) -> None:
        """See :class:`luthier.run.Desk`."""
        trial, reason = self._ledger[number], self._halted.pop(number, None)
        if reason is not None and outcome.status is Status.STOPPED:
            self._keep(_rested(trial), Outcome(Status.PAUSED, cause=reason))
            return
        self._end(trial, outcome)
        if outcome.status is Status.FAILED and self._settings.on_error == "raise":
            self._error = ObjectiveError(
                f"trial {number} failed: {outcome.cause}",
                got=f"params {dict(self._ledger[number].params)}\n{outcome.traceback}".rstrip(),
                fix='on_error="record" lets the study go on',
            )
            self._error.__cause__ = outcome.error

    def printed(self, number: int, text: str) -> None:
        """See :class:`luthier.run.Desk`."""
        self._run.progress.say(f"[trial {number}] {text}" if number >= 0 else f"[worker] {text}")

    def _end(self, trial: Trial, outcome: Outcome) -> None:
        ended = self._keep(trial, outcome)
        self._enough = self._enough or self._reached(ended)
        self._told(ended)

    def _reached(self, trial: Trial) -> bool:
        """Whether a trial of the search is good enough to end it."""
        counts = trial.number not in self._run.copies
        return counts and self._settings.budget.reached(trial, self._settings.objectives)

    def _keep(self, trial: Trial, outcome: Outcome) -> Trial:
        """Writes down how a trial stands at the end of its leg."""
        began = self._running.pop(trial.number, None)
        took = time.monotonic() - began if began is not None else 0.0
        before = trial.ended if trial.legs and trial.ended is not None else trial.started
        ended = trial.ending(outcome.status, before + took, outcome.metrics, outcome.cause)
        self._run.store.finish(self._run.name, self._token, self._dumped(ended))
        self._ledger.put(ended)
        self._run.progress.update(ended)
        return ended

    def _dumped(self, trial: Trial) -> Trial:
        return replace(trial, params=self._settings.space.dump(trial.params))

    def _heard_ctrl_c(self) -> None:
        running = len(self._running)
        self._run.progress.say(
            f"Ctrl-C: {running} running trial{'s' if running != 1 else ''} will be finished; press again to stop now"
        )


def _kept(trial: Trial) -> Trial:
    """What is left of a trial when it goes on: of an interrupted one what was told before its last pause."""
    if trial.status is not Status.RUNNING:
        return trial
    reports = tuple(r for r in trial.reports if r.step <= trial.floor)
    return replace(trial, reports=reports, started=trial.started if reports else time.time())


def _rested(trial: Trial) -> Trial:
    """A trial as it stands when it pauses where it is."""
    legs = (*trial.legs[:-1], replace(trial.legs[-1], step=trial.reports[-1].step))
    return replace(trial, status=Status.PAUSED, legs=legs)
