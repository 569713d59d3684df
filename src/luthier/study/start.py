"""``tune`` and ``load_study``: where studies begin, go on and are read."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from luthier import search
from luthier import stop as stop_rules
from luthier.errors import StoreError, UsageError, nearest
from luthier.objectives import Objectives
from luthier.progress import Progress, Quiet, choose
from luthier.run import Limits, Maker, Objective
from luthier.search import Algorithm
from luthier.search._warm import resumed, with_experience
from luthier.space import Parameter, Params, Space
from luthier.stop import StopRule
from luthier.store import Header, State, Store, View, check_name, key, open_store, root_of, short
from luthier.study import exchange
from luthier.study.agree import same_folder, same_study
from luthier.study.driver import Driver, Run
from luthier.study.governor import Bound
from luthier.study.ledger import Ledger
from luthier.study.replicate import originals, plan, settings_for
from luthier.study.settings import Budget, Pool, Settings, Target, read_first
from luthier.study.view import Study
from luthier.trial import Status, Trial

Place = str | os.PathLike[str] | Store | None
Callback = Callable[[Study, Trial], object]


def tune(
    objective: Objective,
    space: Space | Mapping[str, Parameter],
    *,
    maximize: str | None = None,
    minimize: str | None = None,
    objectives: Mapping[str, str] | None = None,
    constraints: Mapping[str, str] | None = None,
    algorithm: str | Algorithm = "auto",
    stop: str | StopRule | None = None,
    trials: int | None = None,
    timeout: float | None = None,
    target: Target = None,
    steps: int | None = None,
    workers: int = 1,
    executor: str | Maker | None = None,
    limits: Limits | None = None,
    store: Place = None,
    name: str | None = None,
    seed: int = 0,
    deterministic: bool | int = False,
    overhead: float | str | None = "auto",
    checkpoints: str | os.PathLike[str] | None = None,
    first: Sequence[Params] | Params = (),
    warm_start: Study | Sequence[Study] | None = None,
    replicate: int = 0,
    on_error: str = "record",
    callbacks: Sequence[Callback] | Callback = (),
    progress: bool | Progress = True,
) -> Study:
    """Searches a space for what an objective likes best.

    A study with a store and a name goes on where an earlier run ended, whatever ended it; ``trials``,
    ``timeout``, ``target`` and ``steps`` are totals over all its runs. A trial that raises, returns nonsense, is
    killed or breaks its limits is recorded as failed with its cause, and the study goes on. Ctrl-C once
    finishes the running trials and returns; twice stops at once. Nothing finished is ever lost.

    Args:
        objective: called with a trial, a mapping of values with ``.params``, ``.number``, ``.seed``,
            ``.report(step, **metrics)`` and ``.checkpoint``; returns a number or a dict of metrics.
        space: where to search.
        maximize: the metric to maximise; or
        minimize: the metric to minimise; or
        objectives: several metrics, each "min" or "max".
        constraints: bounds on metrics, such as ``{"size_mb": "<= 1.0"}``.
        algorithm: a name (see ``luthier methods``) or an object such as ``luthier.search.Bayes()``.
        stop: a stop rule's name or object, such as ``luthier.stop.ASHA(max_steps=10)``; None: no trial is stopped.
        trials: how many in all; None: the whole grid, or as many as the other budgets allow, else 50.
        timeout: seconds in all; then running trials end at their next report, or when they return.
        target: value of the metric that is good enough; with several objectives a dict of them all or some.
        steps: how many reports in all; then running trials end at their next report, as with ``timeout``.
        workers: how many trials run at once.
        executor: "inline", "processes" or "ray", or ``functools.partial(luthier.run.ray.Ray, address=...)``;
            None: inline for one worker without limits, else processes.
        limits: hard limits for each trial.
        store: None: memory; a path: SQLite; a URL: any database that SQLAlchemy knows.
        name: the study's name; None: a new study with a name of its own.
        seed: the same seed gives the same random streams.
        deterministic: proposals see results of trials <= k - lag only (lag 8, or the number given), and stop
            rules likewise, so that any number of workers gives the same trials, bit for bit.
        overhead: share of the wall time that proposing may take; beyond it the algorithm is made cheaper step by step
            (fewer candidates and refits, then TPE, then random), as the log says. "auto": 0.1, once a proposal takes
            over half a second and all of them a minute; never with ``deterministic``. None: no bound.
        checkpoints: the folder for the trials' own folders (``trial.checkpoint``), on storage that all machines share
            where there are several; None: beside an SQLite store, else in the current folder. The study remembers it.
        first: a configuration, or several, to try before the algorithm's own, a known good one for instance.
        warm_start: a related study, or several: its best configurations are tried first, and its ranks guide proposals
            for as long as they agree with the new results. Kept with the study, which goes on with what it began with.
        replicate: how often the five best trials (of the front, with several objectives) are evaluated again when the
            search is over, at least twice; on top of ``trials``. ``best``, ``front`` and ``ranking`` then go by the
            means of these repeats, and hold their 95 % intervals. 0: not at all.
        on_error: "record", or "raise" to end the study at the first trial that fails.
        callbacks: one or several, called with (study, trial) after each trial; ``study.stop()`` ends the study.
        progress: whether to show a live display (plain lines where there is no terminal), or one's own.

    Returns:
        the study, with ``best``, ``front`` and ``trials``.

    Raises:
        UsageError: an argument that cannot be used, or a study of that name about something else.
        StoreError: the store cannot be used, or somebody else drives the study.
        ObjectiveError: a trial failed and ``on_error`` is "raise".
        KeyboardInterrupt: Ctrl-C twice.

    Example:
        >>> import luthier as lt
        >>> study = lt.tune(lambda t: (t["x"] - 1) ** 2, lt.Space(x=lt.Float(-2, 2)), minimize="loss",
        ...                 algorithm="random", trials=20, progress=False)
        >>> study.best.metrics["loss"] < 0.5, len(study.trials)
        (True, 20)
    """
    whole = space if isinstance(space, Space) or not isinstance(space, Mapping) else Space(space)
    whole = with_experience(whole, warm_start)
    wanted, chosen = Objectives.of(maximize, minimize, objectives, constraints), search.get(algorithm)
    settings = Settings(
        objective=objective,
        space=whole,
        objectives=wanted,
        algorithm=chosen,
        stop=stop_rules.get(stop),
        budget=Budget.of(trials, timeout, target, steps, wanted, endless=callable(getattr(chosen, "count", None))),
        pool=Pool.of(workers, executor, limits, deterministic, checkpoints),
        seed=seed,
        first=read_first(first, whole) if isinstance(whole, Space) else (),
        replicate=replicate,
        on_error=on_error,
        callbacks=(callbacks,) if callable(callbacks) else tuple(callbacks or ()),
        overhead=Bound.of(overhead, deterministic is not False),
    )
    return _drive(settings, store, name, choose(progress))


def _drive(settings: Settings, place: Place, name: str | None, progress: Progress) -> Study:
    store = open_store(place)
    try:
        state = _open(store, name, settings)
        settings = replace(settings, space=resumed(settings.space, state.header.space))
        root = root_of(place, state.header) or settings.pool.root
        same_folder(root, settings.pool.root)
        folder = Path(tempfile.mkdtemp(prefix="luthier-")) if root is None else Path(str(root)) / key(state.header.name)
        study = _view(store, state.header, settings.space, folder)
        if root is None:
            study.scratch = weakref.finalize(study, shutil.rmtree, folder, ignore_errors=True)
        known = len(originals(study.views))
        first = _phase(study, _longer(settings, known), store, progress)
        if settings.replicate and first.fulfilled:
            again = plan(settings, study.trials, originals(study.views))
            if again:
                _phase(study, settings_for(settings, again, len(study.trials)), store, progress)
        _conclude(study, progress)
        return study
    finally:
        if store is not place:
            store.close()


def _longer(settings: Settings, repeats: int) -> Settings:
    """With a bound on trials that leaves room for the repeats there are: only the search's own count."""
    total = settings.budget.trials
    if total is None or repeats == 0:
        return settings
    return replace(settings, budget=replace(settings.budget, trials=total + repeats))


def _phase(study: Study, settings: Settings, store: Store, progress: Progress) -> Driver:
    """Drives the search, or the repeats after it, to the end."""

    def told(trial: Trial) -> None:
        if settings.repeats and settings.callbacks:
            study.views = store.views(study.name)
        for callback in settings.callbacks:
            callback(study, trial.copy())

    copies = originals(study.views)
    driver = Driver(Run(settings, store, study.name, study.ledger, progress, study.folder, copies), told)
    study.ender = driver.stop
    driver.drive()
    study.ender = None
    study.views = store.views(study.name)
    study.interrupted = driver.interrupted
    return driver


def _conclude(study: Study, progress: Progress) -> None:
    """Says which trial is best where that is not simply the best measurement."""
    if isinstance(progress, Quiet) or not study.objectives.complete(study.trials):
        return
    best = study.best
    if best.estimates:
        known = ", ".join(f"{name} {each}" for name, each in best.estimates.items())
        why = "by its repeats" if next(iter(best.estimates.values())).by == "repeats" else "as a model sees noise"
        progress.say(f"best {why}: trial {best.number}: {known}")


def _open(store: Store, name: str | None, settings: Settings) -> State:
    """The study of that name, made where there is none."""
    if name is None:
        return _open_new(store, settings)
    header = _header(check_name(name), settings)
    if store.create(header):
        return State(header)
    state = store.state(header.name)
    if state is None:
        raise StoreError(f"the study {short(name)!r} was deleted while it was being opened", fix="run again")
    same_study(state.header, header)
    return state


def _open_new(store: Store, settings: Settings) -> State:
    taken = len(store.studies())
    while True:
        taken += 1
        header = _header(f"study-{taken}", settings)
        if store.create(header):
            return State(header)


def _header(name: str, settings: Settings) -> Header:
    wanted = settings.objectives
    return Header(
        name=name,
        space=settings.space.to_json(),
        objectives={
            "directions": dict(wanted.directions),
            "constraints": {c.metric: f"{c.operator} {c.bound!r}" for c in wanted.constraints},
        },
        settings={
            "algorithm": type(settings.algorithm).__name__,
            "stop": repr(settings.stop) if settings.stop is not None else None,
            "seed": int(settings.seed),
            "lag": settings.pool.lag,
            "checkpoints": settings.pool.checkpoints,
        },
        created=time.time(),
    )


def load_study(store: Place, name: str | None = None) -> Study:
    """Reads a study from a store, whether it is over, running or was interrupted.

    A trial that was running when its driver died shows as failed; resuming the study runs it again.

    Args:
        store: a path, a URL or a store.
        name: the study's name; None: the only one there is.

    Returns:
        the study; options that JSON lacks (classes, say) come back as their printed form.

    Raises:
        StoreError: there is no such store.
        UsageError: there is no such study, or there are several and none was named.
    """
    opened = open_store(store, create=False)
    try:
        state = _find(opened, name)
        space, _ = exchange.understood(state.header)
        root = root_of(store, state.header) or Path(tempfile.gettempdir())
        study = _view(opened, state.header, space, root / key(state.header.name))
    finally:
        if opened is not store:
            opened.close()
    if state.driver is None:
        for trial in study.ledger.unfinished:
            study.ledger.put(trial.ending(Status.FAILED, trial.started, cause="interrupted: its driver died"))
    return study


def import_study(path: str | os.PathLike[str], store: Place, name: str | None = None) -> Study:
    """Reads a file that :meth:`Study.export` wrote into a store.

    Args:
        path: the file; it is data, nothing in it is run.
        store: a path, a URL or a store.
        name: the study's name there; None: its own.

    Returns:
        the study, as :func:`load_study` gives it.

    Raises:
        StoreError: the file or the store cannot be used.
        UsageError: there is a study of that name.
    """
    header, entries = exchange.read(Path(path))
    opened = open_store(store)
    try:
        exchange.put(opened, header, entries, name)
    finally:
        if opened is not store:
            opened.close()
    return load_study(store, header.name if name is None else name)


def copy_study(source: Place, name: str, target: Place, new_name: str | None = None) -> Study:
    """Copies a study from one store to another, or within one under a new name.

    Args:
        source: a path, a URL or a store.
        name: the study.
        target: where to.
        new_name: its name there; None: the same.

    Returns:
        the copy.

    Raises:
        StoreError: one of the stores cannot be used.
        UsageError: there is no such study, or there is one at the target.
    """
    opened = open_store(source, create=False)
    made = open_store(target)
    try:
        state = _find(opened, name)
        views = opened.views(name)
        entries = [(t, views.get(t.number, View())) for t in opened.trials(name)]
        exchange.put(made, state.header, entries, new_name)
    finally:
        for each, place in ((opened, source), (made, target)):
            if each is not place:
                each.close()
    return load_study(target, name if new_name is None else new_name)


def _find(store: Store, name: str | None) -> State:
    if name is not None and (state := store.state(check_name(name))) is not None:
        return state
    known = store.studies()
    if name is None and len(known) == 1:
        return known[0]
    names = [short(s.header.name) for s in known]
    raise UsageError(
        f"there is no study {short(name)!r} in the store" if name is not None else "which study?",
        expected="one of " + ", ".join(map(repr, names)) if names else "a store with at least one study",
        got=repr(short(name)) if name is not None else f"no name, and {len(names)} studies",
        fix=nearest(name, names) if name is not None else None,
    )


def _view(store: Store, header: Header, space: Space, folder: Path) -> Study:
    _, wanted = exchange.understood(header)
    try:
        ledger = Ledger(replace(t, params=space.load(t.params)) for t in store.trials(header.name))
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise StoreError(
            f"a trial of the study {short(header.name)!r} is damaged",
            expected="values of its space",
            got=f"{type(error).__name__}: {str(error)[:300]}",
            cause="another program changed the store",
        ) from None
    return Study(header, space, wanted, ledger, folder, store.views(header.name))
