"""The arguments of :func:`luthier.tune`, gathered and checked once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from luthier import run
from luthier.errors import UsageError, unknown
from luthier.keys import read_seed
from luthier.objectives import Objectives
from luthier.run import Limits, Objective
from luthier.search import Algorithm
from luthier.space import Params, Space
from luthier.stop import StopRule
from luthier.study.governor import Bound
from luthier.study.replicate import Repeat
from luthier.trial import Status, Trial

_LAG = 8
_TRIALS = 50

Target = float | Mapping[str, float] | None


@dataclass(frozen=True)
class Budget:
    """When a study ends: whichever comes first. All are totals over every run of the study.

    Attributes:
        trials: how many trials in all; None: no bound.
        timeout: seconds in all; None: no bound.
        target: metric values that are good enough, by name.
        steps: how many reports in all; None: no bound.
    """

    trials: int | None = None
    timeout: float | None = None
    target: Mapping[str, float] = field(default_factory=dict)
    steps: int | None = None

    @classmethod
    def of(cls, trials: Any, timeout: Any, target: Target, steps: Any, objectives: Objectives, endless: bool) -> Budget:
        """Reads what a user gave; ``endless``: the space itself is the bound."""
        if trials is None and timeout is None and target is None and steps is None and not endless:
            trials = _TRIALS
        for name, value in (("trials", trials), ("steps", steps)):
            if value is not None and not (_is_whole(value) and value >= 1):
                raise UsageError(f"{name!r} is not a whole number", expected=f"{name} >= 1", got=repr(value))
        if timeout is not None and not (_is_real(timeout) and timeout > 0):
            raise UsageError("'timeout' is not a number of seconds", expected="timeout > 0", got=repr(timeout))
        return cls(trials, timeout, _read_target(target, objectives), steps)

    def reached(self, trial: Trial, objectives: Objectives) -> bool:
        """Whether a trial is good enough to end the study."""
        if not self.target or trial.status is not Status.COMPLETE or objectives.violation(trial.metrics) > 0:
            return False
        signs = {n: -1.0 if d == "max" else 1.0 for n, d in objectives.directions}
        return all(signs[n] * trial.metrics[n] <= signs[n] * v for n, v in self.target.items())


def _read_target(target: Target, objectives: Objectives) -> Mapping[str, float]:
    if target is None:
        return {}
    if not isinstance(target, Mapping):
        if len(objectives.names) > 1:
            names = ", ".join(f"{n!r}: ..." for n in objectives.names)
            raise UsageError("the target is ambiguous", expected="{" + names + "}", got=repr(target))
        target = {objectives.names[0]: target}
    for name, value in target.items():
        if name not in objectives.names:
            raise unknown("objective in 'target':", name, objectives.names)
        if not (_is_real(value) and math.isfinite(value)):
            raise UsageError(f"the target of {name!r} is not a number", expected="a finite number", got=repr(value))
    return dict(target)


@dataclass(frozen=True)
class Pool:
    """Where trials run.

    Attributes:
        workers: how many at once.
        executor: the executor's name, or what makes one from work and desk.
        limits: hard limits for each trial.
        lag: proposal k sees results of trials <= k - lag only; None: whatever is there.
        checkpoints: the folder of the trials' folders; None: beside the store.
    """

    workers: int
    executor: str | run.Maker
    limits: Limits
    lag: int | None
    checkpoints: str | None = None

    @property
    def root(self) -> Path | None:
        """The folder that was given, as a path."""
        return Path(self.checkpoints) if self.checkpoints else None

    @classmethod
    def of(cls, workers: Any, executor: Any, limits: Limits | None, deterministic: Any, checkpoints: Any) -> Pool:
        """Reads what a user gave; several workers or limits need processes."""
        if not _is_whole(workers) or workers < 1:
            raise UsageError("'workers' is not a whole number", expected="workers >= 1", got=repr(workers))
        if limits is not None and not isinstance(limits, Limits):
            raise UsageError("'limits' is not a Limits", expected="luthier.Limits(seconds=600)", got=repr(limits))
        kept = limits or Limits()
        name = executor if executor is not None else "inline" if workers == 1 and not kept else "processes"
        if name not in run.names() and not callable(name):
            raise unknown("executor", str(name), run.names())
        return cls(int(workers), name, kept, _read_lag(deterministic), _read_folder(checkpoints))


def _read_folder(folder: Any) -> str | None:
    if folder is None:
        return None
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder) or "://" in str(folder):
        raise UsageError("'checkpoints' is no folder", expected='a path such as "/shared/runs"', got=repr(folder))
    path = Path(os.fspath(folder)).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise UsageError(
            "'checkpoints' is no folder", expected="a folder, or a path that is free", got=f"the file {path}"
        )
    return str(path)


def _read_lag(deterministic: Any) -> int | None:
    if isinstance(deterministic, bool):
        return _LAG if deterministic else None
    if _is_whole(deterministic) and deterministic >= 1:
        return int(deterministic)
    raise UsageError(
        "'deterministic' cannot be read",
        expected="False, True, or the lag: a whole number >= 1 of trials that may run at once",
        got=repr(deterministic),
    )


@dataclass(frozen=True)
class Settings:
    """All that a driver needs to know.

    Attributes:
        objective: evaluates a trial.
        space: where to search.
        objectives: what is wanted.
        algorithm: proposes.
        stop: ends hopeless trials; None: never.
        budget: when to end.
        pool: where trials run.
        seed: of every random stream.
        first: configurations to try before the algorithm's own.
        replicate: how often the leaders are evaluated again when the search is over; 0: not at all.
        repeats: trials to evaluate again, before anything else.
        on_error: "record" or "raise".
        callbacks: called with (study, trial) after each trial.
        overhead: how much time proposing may take; None: any.
    """

    objective: Objective
    space: Space
    objectives: Objectives
    algorithm: Algorithm
    stop: StopRule | None
    budget: Budget
    pool: Pool
    seed: int = 0
    first: tuple[Params, ...] = ()
    replicate: int = 0
    repeats: tuple[Repeat, ...] = ()
    on_error: str = "record"
    callbacks: tuple[Callable[..., Any], ...] = ()
    overhead: Bound | None = None

    def __post_init__(self) -> None:
        if not callable(self.objective):
            raise UsageError(
                "the objective cannot be called", expected="a function of one trial", got=repr(self.objective)
            )
        if not isinstance(self.space, Space):
            raise UsageError("the space is no Space", expected="luthier.Space(lr=luthier.Float(...))", got=self.space)
        read_seed(self.seed)
        if not _is_whole(self.replicate) or self.replicate < 0 or self.replicate == 1:
            raise UsageError(
                "'replicate' is not a number of repeats",
                expected="0, or replicate >= 2: an interval needs at least two results",
                got=repr(self.replicate),
            )
        if self.on_error not in ("record", "raise"):
            raise UsageError("'on_error' is unknown", expected='"record" or "raise"', got=repr(self.on_error))
        for callback in self.callbacks:
            if not callable(callback):
                raise UsageError("a callback cannot be called", expected="f(study, trial)", got=repr(callback))


def read_first(first: Any, space: Space) -> tuple[Params, ...]:
    """Checks the configurations that are to be tried first: a list of them, or one."""
    listed = [first] if isinstance(first, Mapping) else first or ()
    for params in listed:
        if not isinstance(params, Mapping):
            raise UsageError(
                "'first' holds something that is no configuration",
                expected='first=[{"lr": 0.01, ...}, ...]',
                got=repr(first),
            )
    return tuple(space.check(params) for params in listed)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
