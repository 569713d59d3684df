"""Executors: they evaluate trials and report; they decide nothing and write nothing. One file is one executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from luthier import discover
from luthier.errors import UsageError
from luthier.objectives import Objectives
from luthier.trial import Report, Status

Objective = Callable[[Any], Any]


@dataclass(frozen=True)
class Limits:
    """Hard limits for each trial; one that exceeds them is killed and recorded as failed, with the cause.

    Args:
        seconds: wall-clock time of one trial.
        memory_gb: resident memory of the trial's process and all its children, in 10^9 bytes.

    Raises:
        UsageError: a limit that is not a positive number.

    Example:
        >>> Limits(seconds=600, memory_gb=4)
        Limits(seconds=600, memory_gb=4)
    """

    seconds: float | None = None
    memory_gb: float | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "memory_gb"):
            value: Any = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and not isinstance(value, bool) and value > 0):
                raise UsageError(f"Limits: {name!r} is not a positive number", expected=f"{name} > 0", got=repr(value))

    def __bool__(self) -> bool:
        return self.seconds is not None or self.memory_gb is not None


@dataclass(frozen=True)
class Job:
    """One trial to evaluate.

    Attributes:
        number: the trial's number.
        params: its values.
        seed: a number for the objective's own random streams, the same whenever this trial runs.
        folder: where its checkpoint may live; made when first asked for.
        step: what it reported last before it paused; -1: it starts afresh.
    """

    number: int
    params: Mapping[str, Any]
    seed: int
    folder: str
    step: int = -1


@dataclass(frozen=True)
class Outcome:
    """How an evaluation ended.

    Attributes:
        status: complete, stopped or failed.
        metrics: what was returned; None: keep what was last reported.
        cause: why it failed or was stopped, in one line.
        traceback: the whole story of a failure, for people.
        error: the exception itself where it is at hand (inline only).
    """

    status: Status
    metrics: Mapping[str, float] | None = None
    cause: str | None = None
    traceback: str = ""
    error: BaseException | None = field(default=None, compare=False)


class Desk(Protocol):
    """The driver, as an executor sees it."""

    def reported(self, number: int, report: Report) -> str | None:
        """Stores a report; the answer is None to go on, or the reason to stop."""
        ...

    def finished(self, number: int, outcome: Outcome) -> None:
        """Stores how a trial ended."""
        ...

    def printed(self, number: int, text: str) -> None:
        """Shows a line that a trial printed."""
        ...


@dataclass(frozen=True)
class Work:
    """Everything an executor needs to know.

    Attributes:
        objective: evaluates a trial.
        objectives: what a result must hold.
        workers: how many trials may run at once.
        limits: hard limits for each of them.
    """

    objective: Objective
    objectives: Objectives
    workers: int = 1
    limits: Limits = Limits()


class Executor(Protocol):
    """What every executor does; its class is made with (work, desk)."""

    @property
    def free(self) -> int:
        """How many more trials may be submitted now."""
        ...

    def submit(self, job: Job) -> None:
        """Takes a trial; returns soon or at the latest when the trial has ended."""
        ...

    def wait(self, seconds: float) -> None:
        """Evaluates or listens until something happened, at most about that long, and tells the desk."""
        ...

    def close(self) -> None:
        """Ends everything at once, running trials included; a second call does nothing."""
        ...


Maker = Callable[[Work, Desk], Executor]


def names() -> list[str]:
    """The executors there are."""
    return discover.names(__name__)


def get(name: str | Maker) -> Maker:
    """What makes the executor of that name; a callable is handed through.

    Raises:
        UsageError: there is none.
    """
    if not isinstance(name, str):
        return name
    made: Maker = discover.load(__name__, name, "executor")
    return made
