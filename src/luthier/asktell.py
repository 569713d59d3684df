"""Ask and tell: the search alone, for loops of your own."""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections.abc import Mapping
from typing import Any

from luthier import search
from luthier.errors import UsageError
from luthier.keys import Key, read_seed
from luthier.objectives import Objectives
from luthier.search._standing import Standing, is_grid, standing
from luthier.search._threads import OneThread
from luthier.search._warm import with_experience
from luthier.space import Params, Space
from luthier.trial import Copies, Status, Trial


class AskTell:
    """A search without a driver: ask for parameters, tell what came of them. Threads may share it.

    Args:
        space: where to search: a Space, or a mapping of names to parameters.
        algorithm: a name (see ``luthier methods``) or an object such as ``luthier.search.Bayes()``.
        maximize: the metric to maximise; or
        minimize: the metric to minimise; or
        objectives: several metrics, each "min" or "max".
        constraints: bounds on metrics, such as ``{"size_mb": "<= 1.0"}``.
        seed: the same seed and the same results give the same proposals.
        warm_start: related studies or loops, as for :func:`luthier.tune`.

    Raises:
        UsageError: an argument that cannot be used.

    Example:
        >>> import luthier as lt
        >>> loop = lt.AskTell(lt.Space(x=lt.Float(-1, 1)), algorithm="random", minimize="loss", seed=0)
        >>> for _ in range(20):
        ...     p = loop.ask()
        ...     loop.tell(p, p.params["x"] ** 2)
        >>> loop.best.metrics["loss"] < 0.1
        True
    """

    def __init__(
        self,
        space: Space | Mapping[str, Any],
        *,
        algorithm: str | search.Algorithm = "auto",
        maximize: str | None = None,
        minimize: str | None = None,
        objectives: Mapping[str, str] | None = None,
        constraints: Mapping[str, str] | None = None,
        seed: int = 0,
        warm_start: Any = None,
    ) -> None:
        self.space = with_experience(_whole(space), warm_start)
        self.objectives = Objectives.of(maximize, minimize, objectives, constraints)
        self.algorithm = search.get(algorithm)
        self.seed = read_seed(seed)
        self._one_thread = OneThread()
        self._trials: list[Trial] = []
        self._history: list[Trial] = []  # those that ended, by number
        self._pending: dict[int, Trial] = {}
        self._known: tuple[int, Standing] | None = None
        self._copies = Copies()
        self._lock = threading.RLock()  # one thread at a time asks or tells

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {n: v for n, v in self.__dict__.items() if n != "_lock"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    @property
    def trials(self) -> list[Trial]:
        """Every trial asked for or added, by number."""
        with self._lock:
            return self._copies.of(self._trials)

    def ask(self) -> Trial:
        """The next proposal, as a running trial whose ``params`` are the caller's own.

        Raises:
            UsageError: every combination has been proposed, or no more that ``where`` allows are found.
        """
        with self._lock:
            number = len(self._trials)
            pending, key = list(self._pending.values()), Key(self.seed, number)
            with self._one_thread():
                found = self.algorithm.ask(self.space, self.objectives, self._history, pending, 1, key)
            if not found:
                cause = "nothing more that its 'where' allows was found" if self.space.where else None
                fix = "stop asking, or widen the space"
                raise UsageError("the space is exhausted", got=f"{number} proposals", cause=cause, fix=fix)
            trial = Trial(number, found[0], started=time.time())
            self._trials.append(trial)
            self._pending[number] = trial
            return trial.copy()

    def tell(self, trial: Trial, result: Any = None, *, failed: str | None = None) -> None:
        """Records what came of a proposal.

        Args:
            trial: what :meth:`ask` gave.
            result: a number, or a dict of metrics.
            failed: why there is no result, in words; the search learns to keep away.

        Raises:
            UsageError: not a trial of this search, told twice, or both a result and a failure.
            ObjectiveError: the result is no result.
        """
        if not isinstance(trial, Trial):
            raise UsageError(
                "what was told of is no trial", expected="what ask() gave", got=repr(trial), fix="add(params, result)"
            )
        with self._lock:
            known = self._trials[trial.number] if trial.number < len(self._trials) else None
            mine = known is not None and known.started == trial.started  # the caller may have changed its params
            if known is None or not mine or known.finished:
                state = "it was told before" if mine else "it is from elsewhere"
                raise UsageError(f"trial {trial.number} cannot be told", cause=state, fix="add(params, result)")
            self._end(self._outcome(known, result, failed))

    def add(self, params: Params, result: Any = None, *, failed: str | None = None) -> None:
        """Records a result, or a failure, known from elsewhere (warm start).

        Args:
            params: values of the active parameters.
            result: a number, or a dict of metrics.
            failed: why there is no result, in words.

        Raises:
            UsageError: the parameters are not of this space, or both a result and a failure.
            ObjectiveError: the result is no result.
        """
        with self._lock:
            trial = Trial(len(self._trials), self.space.check(params), started=time.time()).copy()
            ended = self._outcome(trial, result, failed)
            self._trials.append(trial)
            self._end(ended)

    def _outcome(self, trial: Trial, result: Any, failed: str | None) -> Trial:
        if failed is None:
            return trial.ending(Status.COMPLETE, time.time(), self.objectives.read(result))
        if result is not None:
            raise UsageError(
                "a trial has a result or has failed", expected="result, or failed=", got=f"{result!r} and {failed!r}"
            )
        return trial.ending(Status.FAILED, time.time(), cause=failed)

    def _end(self, trial: Trial) -> None:
        self._trials[trial.number] = trial
        self._pending.pop(trial.number, None)
        insort(self._history, trial, key=_number)

    @property
    def best(self) -> Trial:
        """The best completed trial: feasible first, then the objective (of several, the first on the front).

        Where the results are noisy it is the trial that a model believes to be best, not the luckiest measurement, as
        for :attr:`luthier.Study.best`.

        Raises:
            UsageError: nothing has completed yet.
        """
        best = self._standing().best
        if best is None:
            raise UsageError("there is no best trial yet", got="no completed trial", fix="tell a result first")
        return best.copy()

    @property
    def front(self) -> list[Trial]:
        """The completed trials that none other dominates."""
        return [t.copy() for t in self._standing().front]

    def _standing(self) -> Standing:
        with self._lock:
            finished = sum(t.finished for t in self._trials)
            if self._known is None or self._known[0] != finished:
                modelled = not is_grid(self.algorithm)
                self._known = finished, standing(self.space, self.objectives, self._trials, modelled=modelled)
            return self._known[1]


def _whole(space: Any) -> Space:
    if isinstance(space, Space):
        return space
    if not isinstance(space, Mapping):
        raise UsageError("the space is no Space", expected="luthier.Space(lr=luthier.Float(...))", got=repr(space))
    return Space(space)


def _number(trial: Trial) -> int:
    return trial.number
