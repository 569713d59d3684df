"""The laws of a store as a test kit: whoever writes a store of their own can check it with :func:`check`."""

from __future__ import annotations

import contextlib
import math
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from luthier.errors import CheckError, StoreError
from luthier.store import Header, Store, View
from luthier.trial import Leg, Report, Status, Trial

ME, YOU = "me" * 16, "you" * 10
AWKWARD = ("plain", 'it\'s "quoted"; DROP TABLE luthier_trials;--', "🎻/../..\\é\n", "x" * 10_000, "%s {} ?")


def check(make: Callable[[], Store]) -> None:
    """Puts a store through every law, each on a study of its own.

    Args:
        make: gives the store, empty or not; it is closed after each law, and no study of the laws stays in it.

    Raises:
        CheckError: a law is broken; says which and how.

    Example:
        >>> from luthier.store.memory import Memory
        >>> check(Memory)
    """
    for law in LAWS:
        store = make()
        made = _Noting(store)
        try:
            law(cast(Store, made))
        finally:
            made.tidy()
            store.close()


class _Noting:
    """A store that notes which studies are made in it, so that none is left behind."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._names: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def create(self, header: Header) -> bool:
        self._names.append(header.name)
        return self._store.create(header)

    def tidy(self) -> None:
        """Deletes them, as far as a store that breaks laws lets itself be tidied up."""
        for name in self._names:
            with contextlib.suppress(Exception):
                self._store.delete(name)


def any_name(store: Store) -> None:
    """Studies have any name, and each its own trials."""
    for name in AWKWARD:
        name += uuid.uuid4().hex
        _expect(store.create(_header(name)), "a new study can be created", name[:40])
        store.claim(name, ME, 60.0)
        store.start(name, ME, Trial(0, {"x": name}, started=1.0), View())
        _same([t.params for t in store.trials(name)], [{"x": name}], "params come back")
        _expect(name in [s.header.name for s in store.studies()], "a study is listed", name[:40])
        store.delete(name)
        _same(store.state(name), None, "a deleted study is gone")


def created_once(store: Store) -> None:
    """A study is created once, and its header comes back."""
    header = _header()
    _expect(store.create(header), "a new study can be created", header.name)
    _expect(not store.create(header), "a second study of a name is refused by False", header.name)
    state = store.state(header.name)
    _same(state and state.header, header, "the header comes back")
    _same(store.state("nobody" + header.name), None, "there is None where there is no study")


def trials_come_back(store: Store) -> None:
    """A trial comes back bit for bit, infinities and the awkward characters of a cause included."""
    name = _begun(store)
    trial = Trial(0, {"x": 0.1, "o": None, "b": True, "n": 10**12, "s": "it's 🎻"}, started=1.25)
    _same(store.start(name, ME, trial, View()), 1, "the first start counts 1")
    for step, value in ((0, 0.5), (3, math.inf), (7, -math.inf)):
        trial = trial.with_report(Report(step, {"loss": value, "third": 1 / 3}))
        store.report(name, ME, 0, trial.reports[-1])
    ended = trial.ending(Status.FAILED, 2.5, cause="it's over")
    store.finish(name, ME, ended)
    _same(store.trials(name), [ended], "a trial comes back")
    store.report(name, ME, 0, Report(7, {"loss": 2.0}))
    _same(store.trials(name)[0].reports[-1], Report(7, {"loss": 2.0}), "a second report for a step replaces the first")


def starts_are_counted(store: Store) -> None:
    """Starting again forgets what came after the last pause, and counts."""
    name = _begun(store)
    trial = Trial(0, {"x": 1}, started=2.0, legs=(Leg(0),))
    for times in (1, 2, 3):
        _same(store.start(name, ME, trial, View()), times, "starts are counted")
        store.report(name, ME, 0, Report(1, {"loss": 1.0}))
    _same(store.start(name, ME, trial, View()), 4, "starts are counted")
    _same(store.trials(name), [trial], "reports are forgotten")
    trial = trial.with_report(Report(2, {"loss": 1.0}))
    store.report(name, ME, 0, trial.reports[-1])
    paused = replace(trial, legs=(Leg(0, 2),)).ending(Status.PAUSED, 3.5, cause="waits")
    store.finish(name, ME, paused)
    _same(store.trials(name), [paused], "a paused trial comes back")
    again = replace(paused, status=Status.RUNNING, legs=(Leg(0, 2), Leg(7)))
    _same(store.start(name, ME, again, View()), 1, "after a pause the count begins again")
    store.report(name, ME, 0, Report(3, {"loss": 0.5}))
    store.start(name, ME, again, View())
    _same(store.trials(name)[0].reports, paused.reports, "what was told before the pause stays, the rest goes")


def one_driver(store: Store) -> None:
    """A live driver keeps others out; one that lost its lease writes no more."""
    name = _begun(store)
    store.start(name, ME, Trial(0, {}), View())
    _refused(lambda: store.claim(name, YOU, 60.0), "a second driver is refused")
    store.release(name, YOU)
    _refused(lambda: store.claim(name, YOU, 60.0), "somebody else's lease is not given back")
    state = store.state(name)
    _expect(state is not None and bool(state.driver), "the live driver is named", state)
    store.beat(name, ME, 12.25)
    state = store.state(name)
    _same(state and state.spent, 12.25, "the time spent is kept")
    store.release(name, ME)
    store.claim(name, YOU, 60.0)
    done = Trial(0, {}).ending(Status.COMPLETE, 1.0, {"loss": 1.0})
    for act in (
        lambda: store.start(name, ME, Trial(1, {}), View()),
        lambda: store.report(name, ME, 0, Report(1, {"loss": 1.0})),
        lambda: store.finish(name, ME, done),
        lambda: store.beat(name, ME, 1.0),
    ):
        _refused(act, "a driver that lost its lease writes no more")
    _same(store.trials(name), [Trial(0, {})], "and left nothing behind")


def views_stay(store: Store) -> None:
    """What a proposal was made from is kept, also when its trial is begun again."""
    name = _begun(store)
    views = {0: View("user"), 1: View("algorithm", (0,), 2), 2: View("algorithm", (0, 1))}
    for number, view in views.items():
        store.start(name, ME, Trial(number, {}), view)
    store.start(name, ME, Trial(1, {}), View())
    _same(store.views(name), views, "views come back")


LAWS: tuple[Callable[[Store], None], ...] = (
    any_name,
    created_once,
    trials_come_back,
    starts_are_counted,
    one_driver,
    views_stay,
)


def _header(name: str | None = None) -> Header:
    wanted = {"directions": {"loss": "min"}, "constraints": {}}
    space = {"parameters": {"x": {"kind": "float", "low": 0.0, "high": 1.0, "log": False}}, "where": 0}
    settings = {"algorithm": "Random", "stop": None, "seed": 3, "lag": None}
    return Header(name or uuid.uuid4().hex, space, wanted, settings, 12.5)


def _begun(store: Store) -> str:
    header = _header()
    store.create(header)
    store.claim(header.name, ME, 60.0)
    return header.name


def _expect(holds: bool, law: str, got: object) -> None:
    if not holds:
        raise CheckError(f"the store breaks a law: {law}", got=got)


def _same(got: object, wanted: object, law: str) -> None:
    if got != wanted:
        raise CheckError(f"the store breaks a law: {law}", expected=wanted, got=got)


def _refused(act: Callable[[], object], law: str) -> None:
    try:
        act()
    except StoreError:
        return
    raise CheckError(f"the store breaks a law: {law}", expected="a StoreError", got="none")
