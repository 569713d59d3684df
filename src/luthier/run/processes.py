"""Trials in worker processes on this machine."""

from __future__ import annotations

import contextlib
import time
from multiprocessing import connection

from luthier.run import Desk, Job, Outcome, Work
from luthier.run._child import Child
from luthier.run._pack import pack
from luthier.run._worker import ending
from luthier.trial import Report, Status

_BEAT = 0.1  # seconds between two looks at memory and clocks


class Processes:
    """Persistent worker processes, each with its share of threads; a killed or crashed one is replaced.

    Workers are fresh interpreters (never forks), so that threads and locks of the driver cannot hang
    them; objectives travel by cloudpickle, so that lambdas, notebooks and scripts without a main guard
    work. They ignore Ctrl-C and die with the driver.

    Raises:
        UsageError: the objective cannot be sent to another process.
    """

    def __init__(self, work: Work, desk: Desk) -> None:
        self._work = work
        self._desk = desk
        self._packed = pack(work)
        self._children: list[Child] = []

    @property
    def free(self) -> int:
        return self._work.workers - sum(child.job is not None for child in self._children)

    def submit(self, job: Job) -> None:
        idle = next((child for child in self._children if child.job is None), None)
        if idle is None:
            idle = Child(self._packed, self._work.workers)
            self._children.append(idle)
        idle.start(job)

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            left = max(0.0, until - time.monotonic())
            sources = {s: child for child in self._children for s in child.sources}
            ready = connection.wait(list(sources), min(left, _BEAT))
            news = [self._hear(child) for child in dict.fromkeys(sources[s] for s in ready)]
            news += [self._judge(child) for child in list(self._children)]
            if any(news) or left <= 0:
                return

    def close(self) -> None:
        for child in self._children:
            child.kill()
        self._children = []

    def _hear(self, child: Child) -> bool:
        """Takes what a child has to say; True if the driver has something to do now."""
        number = child.job.number if child.job else -1
        for line in child.lines():
            self._desk.printed(number, line)
        try:
            message = child.message()
        except (EOFError, OSError, ValueError):
            return self._bury(child, child.epitaph())
        if message is None or child.job is None:
            return False
        if "step" in message:
            metrics = {name: float.fromhex(text) for name, text in message["metrics"].items()}
            answer = self._desk.reported(number, Report(message["step"], metrics))
            with contextlib.suppress(OSError):
                child.answer(answer)
        elif "end" in message:
            self._finish(child, ending(message["end"]))
            return True
        elif "unreadable" in message:
            why = f"a worker could not load the objective: {message['unreadable']}"
            return self._bury(child, why)
        return False

    def _judge(self, child: Child) -> bool:
        """Kills a trial that is beyond its limits."""
        cause = child.beyond(self._work.limits)
        return cause is not None and self._bury(child, cause)

    def _bury(self, child: Child, cause: str) -> bool:
        if child not in self._children:
            return False
        child.kill()
        self._children.remove(child)
        if child.job is not None:
            self._finish(child, Outcome(Status.FAILED, cause=cause))
        return True

    def _finish(self, child: Child, outcome: Outcome) -> None:
        job, child.job = child.job, None
        if job is not None:
            for line in child.lines(last=True):
                self._desk.printed(job.number, line)
            self._desk.finished(job.number, outcome)
        self._retire(child)

    def _retire(self, child: Child) -> None:
        """Lets go of a worker that keeps hold of much memory, so that the next trial does not pay for it."""
        allowed = self._work.limits.memory_gb
        if allowed is not None and child in self._children and child.memory() > 0.5 * allowed * 1e9:
            self._bury(child, "")


METHOD = Processes
