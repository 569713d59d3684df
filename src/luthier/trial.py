"""The record of one trial: what was tried, what it reported, how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import pairwise
from typing import Any

from luthier.parameters import apart


class Status(Enum):
    """How a trial stands."""

    RUNNING = "running"
    PAUSED = "paused"  # waits for a stop rule to promote it; goes on from its checkpoint
    COMPLETE = "complete"
    STOPPED = "stopped"  # by a stop rule, on purpose; or paused and never promoted
    FAILED = "failed"  # raised, returned nonsense, ran out of time or memory, was killed


class TrialStopped(Exception):
    """Raised inside an objective when a stop rule ends or pauses its trial. Let it pass."""


@dataclass(frozen=True)
class Report:
    """Metrics at one step (epoch, fold, rung) of a trial."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Estimate:
    """What a metric is believed to be without the noise of one measurement.

    Attributes:
        mean: the metric's expected value.
        low: lower end of the 95 % interval around it.
        high: upper end.
        count: how many results it rests on.
        by: "repeats": mean and Student's t interval of the trial's repeats; "model": posterior of a Gaussian process
            over all trials.
    """

    mean: float
    low: float
    high: float
    count: int
    by: str

    def __str__(self) -> str:
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class Leg:
    """One uninterrupted run of a trial that may be paused.

    Attributes:
        turn: its place in the order in which the study started things: 0, 1, 2 ...
        step: where it paused; None: it runs, or it was the trial's last.
    """

    turn: int
    step: int | None = None


def read_legs(rows: Any) -> tuple[Leg, ...]:
    """Legs from [turn, step] each, as they are written down.

    Raises:
        ValueError: something else, or turns or steps that do not rise.
    """
    legs = tuple(Leg(int(turn), None if step is None else int(step)) for turn, step in rows)
    steps = [leg.step for leg in legs[:-1]]
    rising = all(a.turn < b.turn for a, b in pairwise(legs)) and all(s is not None and s >= 0 for s in steps)
    if not rising or any(leg.turn < 0 for leg in legs):
        raise ValueError("the legs of a trial do not rise")
    return legs


@dataclass(frozen=True)
class Trial:
    """One row of a study's history. Never changes; a later state is a new record.

    Attributes:
        number: 0, 1, 2 ... in the order of asking.
        params: values of the active parameters.
        status: see :class:`Status`.
        metrics: the final metrics; of a stopped trial the last ones reported.
        reports: its curve, by rising step.
        cause: why it failed or was stopped, in words; else None.
        started: seconds since 1970 (UTC).
        ended: ``started`` plus the seconds that it ran; None while it runs for the first time.
        legs: its runs, where a stop rule may pause trials; empty: one, whose turn is the trial's number.
        estimates: metric to what is believed of it, where results are noisy; only what a study or a search hands out
            as its best, front or ranking holds them. They do not count when records are compared.
    """

    number: int
    params: Mapping[str, Any]
    status: Status = Status.RUNNING
    metrics: Mapping[str, float] = field(default_factory=dict)
    reports: tuple[Report, ...] = ()
    cause: str | None = None
    started: float = 0.0
    ended: float | None = None
    legs: tuple[Leg, ...] = ()
    estimates: Mapping[str, Estimate] = field(default_factory=dict, compare=False, repr=False)

    @property
    def finished(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.status not in (Status.RUNNING, Status.PAUSED)

    @property
    def resting(self) -> bool:
        """Whether it stands at a pause, from which it could go on: paused, or stopped there when its study ended."""
        paused = bool(self.legs) and self.legs[-1].step is not None
        return paused and self.status in (Status.PAUSED, Status.STOPPED)

    @property
    def floor(self) -> int:
        """The step at which it last paused, -1 if never; what came before stays as it is."""
        return max((leg.step for leg in self.legs if leg.step is not None), default=-1)

    @property
    def seconds(self) -> float | None:
        """How long it took, in seconds."""
        return None if self.ended is None else self.ended - self.started

    def with_report(self, report: Report) -> Trial:
        """The record with one more report; a second one for a step adds its metrics, or corrects them."""
        reports = self.reports
        if reports and reports[-1].step >= report.step:
            same = next((r.metrics for r in reports if r.step == report.step), {})
            report = Report(report.step, {**same, **report.metrics})
            others = [r for r in reports if r.step != report.step]
            return replace(self, reports=tuple(sorted([*others, report], key=lambda r: r.step)))
        return replace(self, reports=(*reports, report))

    def copy(self) -> Trial:
        """The record for somebody who may change its params, as by ``trial.params.pop("model")``."""
        made = object.__new__(Trial)  # as dataclasses.replace, in a third of the time
        made.__dict__.update(self.__dict__, params=apart(dict(self.params)))
        return made

    def upto(self, step: int) -> Trial:
        """The record as it stood when it had reported up to a step: stopped there, with the metrics of then."""
        seen = tuple(r for r in self.reports if r.step <= step)
        kept = tuple(leg for leg in self.legs if leg.step is not None and leg.step <= step)
        return replace(self, status=Status.STOPPED, metrics=self.at(step), reports=seen, cause=None, legs=kept)

    def at(self, step: int) -> dict[str, float]:
        """The newest value of each metric that was reported up to ``step``."""
        out: dict[str, float] = {}
        for report in self.reports:
            if report.step <= step:
                out.update(report.metrics)
        return out

    def ending(
        self, status: Status, ended: float, metrics: Mapping[str, float] | None = None, cause: str | None = None
    ) -> Trial:
        """The record as it stands when the trial ends."""
        last = self.at(self.reports[-1].step) if self.reports else {}
        kept = last if metrics is None else dict(metrics)
        return replace(self, status=status, ended=ended, metrics=kept, cause=cause)


class Copies:
    """Copies of trials for somebody who may change their params, each made once."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Trial, Trial]] = {}

    def of(self, trials: Iterable[Trial]) -> list[Trial]:
        """A copy of each; the same one for the same record."""
        return [self._of(t) for t in trials]

    def _of(self, trial: Trial) -> Trial:
        known = self._made.get(trial.number)
        if known is None or known[0] is not trial:
            known = self._made[trial.number] = trial, trial.copy()
        return known[1]
