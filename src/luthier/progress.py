"""What a running study shows: a live panel on a terminal, plain lines at a sensible rate elsewhere."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from luthier.objectives import Objectives
from luthier.trial import Status, Trial

_RUNNING_SHOWN = 4
_CAUSES_SHOWN = 3


@dataclass(frozen=True)
class Outlook:
    """What is known before the first trial.

    Attributes:
        name: the study's name.
        objectives: what is wanted.
        total: how many trials in all, or None.
        timeout: seconds in all, or None.
        spent: seconds spent by earlier drivers.
    """

    name: str
    objectives: Objectives
    total: int | None = None
    timeout: float | None = None
    spent: float = 0.0


class Progress(Protocol):
    """What a study tells while it runs."""

    def open(self, outlook: Outlook, past: list[Trial]) -> None:
        """The study begins, or goes on after ``past``."""
        ...

    def update(self, trial: Trial) -> None:
        """A trial has begun, reported or ended."""
        ...

    def say(self, text: str) -> None:
        """A line for people."""
        ...

    def close(self) -> None:
        """No trial will be updated any more."""
        ...


class Quiet:
    """Shows nothing."""

    def open(self, outlook: Outlook, past: list[Trial]) -> None:
        """Nothing to show."""

    def update(self, trial: Trial) -> None:
        """Nothing to show."""

    def say(self, text: str) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to show."""


class Tally:
    """Counts, and the best so far; cheap to keep for ten thousand trials."""

    def __init__(self, objectives: Objectives) -> None:
        self.objectives = objectives
        self.counts: Counter[Status] = Counter()
        self.causes: Counter[str] = Counter()
        self.running: dict[int, Trial] = {}
        self.paused: set[int] = set()
        self.front: list[Trial] = []
        self.least_broken: Trial | None = None

    @property
    def done(self) -> int:
        """Trials that have ended or are paused."""
        return self.counts.total() + len(self.paused)

    def add(self, trial: Trial) -> bool:
        """Takes a trial's new state; True if it is a new best or a new point of the front."""
        (self.paused.add if trial.status is Status.PAUSED else self.paused.discard)(trial.number)
        if trial.status is Status.RUNNING:
            self.running[trial.number] = trial
            return False
        self.running.pop(trial.number, None)
        if trial.status is Status.PAUSED:
            return False
        self.counts[trial.status] += 1
        if trial.status is Status.FAILED and trial.cause:
            self.causes[trial.cause] += 1
        return trial.status is Status.COMPLETE and self._joins(trial)

    def _joins(self, trial: Trial) -> bool:
        lack = self.objectives.violation
        if lack(trial.metrics) > 0:
            if self.least_broken is None or lack(trial.metrics) < lack(self.least_broken.metrics):
                self.least_broken = trial
            return False
        mine = self.objectives.losses(trial.metrics)
        kept = []
        for other in self.front:
            theirs = self.objectives.losses(other.metrics)
            if bool(np.all(theirs <= mine)):
                return False
            if not bool(np.all(mine <= theirs)):
                kept.append(other)
        self.front = [*kept, trial]
        return True


class Shown:
    """The usual display.

    Args:
        console: where to; None: standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live: Live | None = None
        self._outlook = Outlook("", Objectives(()))
        self._tally = Tally(Objectives(()))
        self._began = self._printed = time.monotonic()
        self._before = 0
        self._news: str | None = None

    def open(self, outlook: Outlook, past: list[Trial]) -> None:
        self._outlook = outlook
        self._tally = Tally(outlook.objectives)
        for trial in past:
            self._tally.add(trial)
        self._before = self._tally.done
        self._began = self._printed = time.monotonic()
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self._panel, refresh_per_second=5, transient=True)
            self._live.start()
        else:
            resumed = f", {self._before} done before" if self._before else ""
            total = f"{outlook.total} trials" if outlook.total is not None else "trials"
            self.say(f"study {outlook.name}: {total}{resumed}")

    def update(self, trial: Trial) -> None:
        known = len(self._tally.causes)
        if self._tally.add(trial):
            self._news = self.best()
        if known < len(self._tally.causes) <= _CAUSES_SHOWN:
            self.say(f"trial {trial.number} failed: {trial.cause}")
        if self._live is None and trial.finished:
            self._line()

    def say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        self.say(f"study {self._outlook.name}: {self.counts()} in {_clock(self._elapsed())}")
        if best := self.best():
            self.say(best)
        elif self._tally.causes:
            cause, times = self._tally.causes.most_common(1)[0]
            self.say(f"no trial completed; {times} failed alike: {cause}")

    def _line(self) -> None:
        """One line, if enough time has passed: the longer it takes, the rarer they are."""
        now = time.monotonic()
        if now - self._printed < max(2.0, (now - self._began) / 15):
            return
        self._printed = now
        news = f"; {self._news}" if self._news else ""
        self._news = None
        self.say(f"  {self.counts()}, {_clock(self._elapsed())}{self._left_text()}{news}")

    def counts(self) -> str:
        """``24 of 50 trials: 20 complete, 3 stopped, 1 failed``."""
        done, total = self._tally.done, self._outlook.total
        kinds = [f"{self._tally.counts[s]} {s.value}" for s in Status if self._tally.counts[s]]
        if paused := len(self._tally.paused):
            kinds.append(f"{paused} paused")
        if running := len(self._tally.running):
            kinds.append(f"{running} running")
        head = f"{done} of {total} trials" if total is not None else f"{done} trials"
        return head + (": " + ", ".join(kinds) if kinds else "")

    def best(self) -> str | None:
        """The best so far, or the front's size and reach."""
        front, wanted = self._tally.front, self._outlook.objectives
        if not front:
            nearly = self._tally.least_broken
            return f"best so far breaks a constraint: {_metrics(nearly.metrics)}" if nearly else None
        if len(wanted.names) == 1:
            return f"best trial {front[0].number}: {_metrics(front[0].metrics)}; {_params(front[0].params)}"
        points = "1 point" if len(front) == 1 else f"{len(front)} points"
        return f"front of {points}: " + ", ".join(self._reach(name) for name in wanted.names)

    def _reach(self, name: str) -> str:
        values = [t.metrics[name] for t in self._tally.front]
        return f"{name} {min(values):.4g} .. {max(values):.4g}"

    def _elapsed(self) -> float:
        return self._outlook.spent + time.monotonic() - self._began

    def _left(self) -> float | None:
        """Seconds left, by the pace so far and the time-out."""
        guesses = []
        fresh = self._tally.done - self._before
        if self._outlook.total is not None and fresh > 0:
            pace = (time.monotonic() - self._began) / fresh
            guesses.append(pace * max(self._outlook.total - self._tally.done, 0))
        if self._outlook.timeout is not None:
            guesses.append(max(self._outlook.timeout - self._elapsed(), 0.0))
        return min(guesses) if guesses else None

    def _left_text(self) -> str:
        left = self._left()
        return f", about {_clock(left)} left" if left is not None else ""

    def _panel(self) -> Panel:
        return Panel(Group(*self._rows()), title=Text(f"study {self._outlook.name}", style="bold"), title_align="left")

    def _rows(self) -> list[Any]:
        done, total = self._tally.done, self._outlook.total
        bar = ProgressBar(total=total, completed=done, pulse=total is None, width=40)
        head = Table.grid(padding=(0, 2))
        clock = f"{_clock(self._elapsed())}{self._left_text()}"
        head.add_row(bar, Text(f"{done}/{total}" if total is not None else f"{done}", style="bold"), Text(clock))
        rows: list[Any] = [head, Text(self.counts(), style="dim")]
        if best := self.best():
            rows.append(Text(best, style="green", no_wrap=True, overflow="ellipsis"))
        running = sorted(self._tally.running.copy().items())
        rows += [Text(_at_work(t), style="dim", no_wrap=True, overflow="ellipsis") for _, t in running[:_RUNNING_SHOWN]]
        if len(running) > _RUNNING_SHOWN:
            rows.append(Text(f"... and {len(running) - _RUNNING_SHOWN} more running", style="dim"))
        for cause, times in self._tally.causes.most_common(_CAUSES_SHOWN):
            rows.append(Text(f"{times} x failed: {cause}", style="red", no_wrap=True, overflow="ellipsis"))
        return rows


def _at_work(trial: Trial) -> str:
    if not trial.reports:
        return f"trial {trial.number}: {_params(trial.params)}"
    newest = trial.reports[-1]
    return f"trial {trial.number}, step {newest.step}: {_metrics(newest.metrics)}"


def _metrics(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def _params(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_short(value)}" for name, value in params.items())


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _clock(seconds: float) -> str:
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}"


def choose(progress: bool | Progress) -> Progress:
    """The display for ``progress=``: True, False or one of the caller's own."""
    if isinstance(progress, bool):
        return Shown() if progress else Quiet()
    return progress


@contextmanager
def progress_bar(
    epochs: int, metric: str, show: bool, title: str = "training"
) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """A live bar over epochs, with the newest loss and validation score."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[scores]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, disable=not show) as bar:
        row = bar.add_task(title, total=epochs, scores="")

        def tell(epoch: int, scores: Mapping[str, float]) -> None:
            text = f"loss {scores.get('loss', math.nan):.3f}  {metric} {scores.get(metric, math.nan):.4f}"
            bar.update(row, completed=epoch, scores=text)

        yield tell
