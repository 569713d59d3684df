"""Trials one after the other, in the driver's own process."""

from __future__ import annotations

from luthier.errors import UsageError
from luthier.run import Desk, Job, Work
from luthier.run._live import Broken, evaluate
from luthier.trial import Report


class Inline:
    """One trial at a time in this process: no start-up cost, breakpoints work, nothing to pickle.

    Raises:
        UsageError: several workers, or hard limits: a process cannot kill itself and go on.
    """

    def __init__(self, work: Work, desk: Desk) -> None:
        if work.workers != 1 or work.limits:
            wish = f"workers={work.workers}" if work.workers != 1 else f"limits={work.limits}"
            raise UsageError(
                'executor="inline" runs one trial at a time in this very process',
                expected="workers=1 and no limits",
                got=wish,
                fix='executor="processes"',
            )
        self._work = work
        self._desk = desk
        self._next: Job | None = None

    @property
    def free(self) -> int:
        return 0 if self._next else 1

    def submit(self, job: Job) -> None:
        self._next = job

    def wait(self, seconds: float) -> None:
        if self._next is None:
            return
        job, self._next = self._next, None
        errors: list[Exception] = []

        def tell(report: Report) -> str | None:
            try:
                return self._desk.reported(job.number, report)
            except Exception as error:
                errors.append(error)
                raise Broken from error

        try:
            outcome = evaluate(self._work.objective, self._work.objectives, job, tell)
        finally:
            if errors:
                raise errors[0]
        self._desk.finished(job.number, outcome)

    def close(self) -> None:
        self._next = None


METHOD = Inline
