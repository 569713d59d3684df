"""The tuning loop: asks, submits, judges, writes. The only place where search, stop, store and run meet."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from luthier import run
from luthier.errors import LuthierError, ObjectiveError, StoreError
from luthier.keys import Key
from luthier.progress import Outlook, Progress
from luthier.run import Job, Outcome, Work
from luthier.search._threads import OneThread
from luthier.space import Params
from luthier.store import Store, View
from luthier.study.ledger import Ledger
from luthier.study.settings import Settings
from luthier.trial import Report, Status, Trial

_BEAT = 5.0  # seconds between two signs of life
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
    """

    settings: Settings
    store: Store
    name: str
    ledger: Ledger
    progress: Progress
    folder: Path


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
        self._token = uuid.uuid4().hex
        self._queue = deque(self._ledger.unfinished)  # interrupted earlier: they run again
        tried = [t.params for t in self._ledger.trials]
        self._first = deque(p for p in self._settings.first if p not in tried)
        self._repeats = deque(self._settings.repeats)
        self._running: dict[int, float] = {}  # number -> monotonic start
        self._steps = sum(len(t.reports) for t in self._finished())
        self._exhausted = False
        self._enough = False
        self._halt = False  # by a callback
        self._error: LuthierError | None = None
        self._interrupts = Interrupts(self._heard_ctrl_c)
        self._spent_before = 0.0
        self._began = time.monotonic()

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the run before its budget did."""
        return self._interrupts.count > 0 and not self._satisfied()

    @property
    def spent(self) -> float:
        """Seconds that the study has been driven, earlier runs included."""
        return self._spent_before + time.monotonic() - self._began

    @property
    def fulfilled(self) -> bool:
        """Whether the search came to its end by itself: all trials done, the target reached, or the space exhausted."""
        return self._satisfied() and not self._halt and not self._spent_up()

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
            _quietly(lambda: store.beat(name, self._token, self.spent))
            _quietly(lambda: store.release(name, self._token))

    def _loop(self) -> None:
        settings, progress = self._settings, self._run.progress
        work = Work(settings.objective, settings.objectives, settings.pool.workers, settings.pool.limits)
        executor = run.get(settings.pool.executor)(work, self)
        total, timeout = self._total(), settings.budget.timeout
        progress.open(Outlook(self._run.name, settings.objectives, total, timeout, self.spent), self._finished())
        try:
            while True:
                while executor.free > 0 and (job := self._next()) is not None:
                    executor.submit(job)
                if not self._running:
                    break
                executor.wait(_WAIT)
                if self._error is not None:
                    raise self._error
        finally:
            executor.close()
            progress.close()

    def _total(self) -> int | None:
        """How many trials there will be at most, as far as is known."""
        count = getattr(self._settings.algorithm, "count", None)
        whole = count(self._settings.space) if callable(count) else None
        known = [n for n in (self._settings.budget.trials, whole) if n is not None]
        return min(known, default=None)

    def _finished(self) -> list[Trial]:
        return self._ledger.history(len(self._ledger), None)

    # what starts next

    def _next(self) -> Job | None:
        """The next trial to start, written to the store; None if none may start now."""
        if self._ends():
            return None
        while self._queue:
            again = self._queue.popleft()
            if job := self._start(again.number, dict(again.params), View()):
                return job
        number = len(self._ledger)
        budget, lag = self._settings.budget, self._settings.pool.lag
        if budget.trials is not None and number >= budget.trials:
            return None
        if lag is not None and self._ledger.complete_below <= number - lag:
            return None
        params, view = self._propose(number)
        return None if params is None else self._start(number, params, view)

    def _ends(self) -> bool:
        """Whether no more trials start."""
        return self._satisfied() or self._interrupts.count > 0

    def _satisfied(self) -> bool:
        """Whether the budget is used up."""
        total = self._settings.budget.trials
        full = total is not None and self._ledger.finished >= total
        return full or self._enough or self._exhausted or self._spent_up()

    def _late(self) -> bool:
        timeout = self._settings.budget.timeout
        return timeout is not None and self.spent >= timeout

    def _spent_up(self) -> bool:
        """Whether running trials should end, too."""
        steps = self._settings.budget.steps
        return self._late() or (steps is not None and self._steps >= steps)

    def _propose(self, number: int) -> tuple[Params | None, View]:
        if self._repeats:
            again = self._repeats.popleft()
            return again.params, again.view
        if self._first:
            return self._first.popleft(), View("user")
        settings, lag = self._settings, self._settings.pool.lag
        running = [*self._running, *(t.number for t in self._queue)]
        history, pending = self._ledger.history(number, lag), self._ledger.pending(number, lag, running)
        key = Key(settings.seed, number)
        with self._one_thread():
            found = settings.algorithm.ask(settings.space, settings.objectives, history, pending, 1, key)
        self._exhausted = not found
        return (found[0] if found else None), View(pending=tuple(t.number for t in pending))

    def _start(self, number: int, params: Params, view: View) -> Job | None:
        trial = Trial(number, params, started=time.time())
        self._ledger.put(trial)
        starts = self._run.store.start(self._run.name, self._token, self._dumped(trial), view)
        if starts > _STARTS:
            cause = f"it was begun {_STARTS} times, and each time its driver died or was interrupted"
            self._end(trial, Outcome(Status.FAILED, cause=cause))
            return None
        self._running[number] = time.monotonic()
        self._run.progress.update(trial)
        seed = Key(self._settings.seed, number).integer("objective")
        return Job(number, params, seed, str(self._run.folder / str(number)))

    # what executors tell

    def reported(self, number: int, report: Report) -> str | None:
        """See :class:`luthier.run.Desk`."""
        trial = self._ledger[number].with_report(report)
        self._run.store.report(self._run.name, self._token, number, report)
        self._ledger.put(trial)
        self._run.progress.update(trial)
        self._steps += 1
        if self._spent_up():
            return "the study's time was up" if self._late() else "the study's steps were used up"
        rule = self._settings.stop
        if rule is None:
            return None
        others = self._ledger.others(number, self._settings.pool.lag)
        return rule.stops(trial, others, self._settings.objectives)

    def finished(self, number: int, outcome: Outcome) -> None:
        """See :class:`luthier.run.Desk`."""
        self._end(self._ledger[number], outcome)
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
        began = self._running.pop(trial.number, None)
        took = time.monotonic() - began if began is not None else 0.0
        ended = trial.ending(outcome.status, trial.started + took, outcome.metrics, outcome.cause)
        self._run.store.finish(self._run.name, self._token, self._dumped(ended))
        self._ledger.put(ended)
        self._run.progress.update(ended)
        if self._settings.budget.reached(ended, self._settings.objectives):
            self._enough = True
        self._told(ended)

    def _dumped(self, trial: Trial) -> Trial:
        return replace(trial, params=self._settings.space.dump(trial.params))

    def _heard_ctrl_c(self) -> None:
        running = len(self._running)
        self._run.progress.say(
            f"Ctrl-C: {running} running trial{'s' if running != 1 else ''} will be finished; press again to stop now"
        )


class Heart(threading.Thread):
    """Shows that the driver lives, every few seconds, while an objective may keep it busy."""

    def __init__(self, beat: Callable[[], None]) -> None:
        super().__init__(daemon=True, name="luthier-heart")
        self._beat = beat
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(_BEAT):
            _quietly(self._beat)  # a lost lease shows at the next write

    def stop(self) -> None:
        """Ends the thread."""
        self._over.set()
        if self.is_alive():
            self.join()


class Interrupts:
    """Ctrl-C once: count it; twice: KeyboardInterrupt. Leaves other handlers and other threads alone."""

    def __init__(self, heard: Callable[[], None]) -> None:
        self.count = 0
        self._heard = heard
        self._old: Any = None

    def __enter__(self) -> Interrupts:
        mine = threading.current_thread() is threading.main_thread()
        if mine and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._old = signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._old is not None:
            signal.signal(signal.SIGINT, self._old)

    def _take(self, _signal: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
        self._heard()


def _quietly(act: Callable[[], None]) -> None:
    with contextlib.suppress(StoreError):
        act()
