"""What the objective receives, and one evaluation of it, wherever it runs."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np

from luthier.errors import LuthierError, ObjectiveError
from luthier.objectives import Objectives
from luthier.parameters import apart
from luthier.run import Job, Objective, Outcome
from luthier.trial import Report, Status, TrialStopped

Tell = Callable[[Report], str | None]


class LiveTrial(Mapping[str, Any]):
    """A running trial: a mapping from parameter names to values, and the way to report.

    Attributes:
        params: the values, as a dict of the objective's own.
        number: 0, 1, 2 ... within the study.
        seed: a number below 2**32 that depends on the study's seed and the trial's number only.
        resumed: whether it goes on after a pause with a checkpoint; load what it saved there at ``step``.
        step: the last step that it reported before the pause; -1 where it starts afresh, so that
            ``range(trial.step + 1, epochs)`` is what is left to do.
    """

    def __init__(self, job: Job, tell: Tell) -> None:
        self.params = apart(dict(job.params))
        self.number = job.number
        self.seed = job.seed
        self.resumed = job.step >= 0 and os.path.isdir(job.folder)  # else it left nothing behind
        self.step = job.step if self.resumed else -1
        self._folder = job.folder
        self._tell = tell
        self._stopped: str | None = None

    def __getitem__(self, name: str) -> Any:
        return self.params[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.params)

    def __len__(self) -> int:
        return len(self.params)

    def __repr__(self) -> str:
        return f"trial {self.number}: {self.params}"

    @property
    def checkpoint(self) -> str:
        """A folder that survives: the same one when this trial goes on after a pause, or runs again after a crash.

        Save before reporting: a report may be where the trial pauses.
        """
        os.makedirs(self._folder, exist_ok=True)
        return self._folder

    def report(self, step: int, /, **metrics: float) -> None:
        """Reports metrics at a step (epoch, fold, rung). They are stored when the call returns.

        Args:
            step: a whole number that rises within the trial.
            metrics: named numbers; the objectives among them are what stop rules compare.

        Raises:
            TrialStopped: a stop rule ends the trial; let it pass.
            ObjectiveError: the step is no whole number >= 0, or a metric no number.
        """
        self._stopped = self._tell(_read_report(step, metrics)) or self._stopped
        if self._stopped is not None:
            raise TrialStopped(self._stopped)


def _read_report(step: Any, metrics: Mapping[str, Any]) -> Report:
    if isinstance(step, bool) or not isinstance(step, int | np.integer) or not 0 <= step < 2**63:
        raise ObjectiveError("trial.report: 'step' is not a whole number", expected="step >= 0", got=repr(step))
    if not metrics:
        raise ObjectiveError(
            "trial.report: no metric was given",
            expected="named numbers, such as trial.report(3, accuracy=0.9)",
            got="none",
        )
    out = {}
    for name, value in metrics.items():
        try:
            out[name] = float(value)
        except (TypeError, ValueError):
            raise ObjectiveError(
                f"trial.report: the metric {name!r} is not a number", expected="a number", got=repr(value)[:80]
            ) from None
    return Report(int(step), out)


def evaluate(objective: Objective, objectives: Objectives, job: Job, tell: Tell) -> Outcome:
    """Runs the objective once and reads what came of it.

    Nothing that the objective raises gets out, except KeyboardInterrupt and :class:`Broken`. A process that it forked
    ends here: it must not speak for the trial.
    """
    mine = os.getpid()
    trial = LiveTrial(job, tell)
    try:
        return _evaluated(objective, objectives, trial)
    finally:
        if os.getpid() != mine:
            os._exit(0)


def _evaluated(objective: Objective, objectives: Objectives, trial: LiveTrial) -> Outcome:
    try:
        result = objective(trial)
        if trial._stopped is not None:
            return Outcome(Status.STOPPED, cause=trial._stopped)
        return Outcome(Status.COMPLETE, objectives.read(result))
    except TrialStopped as stopped:
        return Outcome(Status.STOPPED, cause=trial._stopped or str(stopped) or "the objective stopped itself")
    except (KeyboardInterrupt, Broken):
        raise
    except BaseException as error:
        return failure(error)


class Broken(BaseException):
    """The driver could not take a report: no fault of the objective's, and nothing that it should catch."""


def failure(error: BaseException) -> Outcome:
    """A failed outcome that tells in one line what was raised and where."""
    story = "".join(traceback.format_exception(error))
    return Outcome(Status.FAILED, cause=_cause(error), traceback=story, error=error)


def _cause(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        kind = "out of memory"
    elif isinstance(error, SystemExit):
        kind = f"the objective called sys.exit({error.code!r})"
    else:
        kind = _sentence(error)
    place = _place(error.__traceback__)
    return f"{kind} ({place})" if place else kind


def _sentence(error: BaseException) -> str:
    if isinstance(error, LuthierError):
        facts = ", ".join(f"{name}: {text}" for name, text in error.details.items())
        return f"{error.what} ({facts})" if facts else error.what
    text = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {text[:500]}" if text else name


def _place(tb: TracebackType | None) -> str | None:
    """File and line of the innermost frame of the user's own code."""
    ours = os.path.dirname(os.path.dirname(__file__))
    own = [f for f in traceback.extract_tb(tb) if not f.filename.startswith(ours)]
    return f"{os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else None
