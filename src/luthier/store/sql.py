"""Studies in a database: SQLite by default, PostgreSQL or another one by its URL."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, create_engine, delete, event, exc, insert, select, update
from sqlalchemy.engine import URL, Row, make_url

from luthier.errors import StoreError
from luthier.store import Header, Lease, State, View, folder_of, held, key, lost
from luthier.store._schema import current, prepare, reports, studies, trials
from luthier.trial import Leg, Report, Status, Trial, read_legs

# Statements are built once: building them costs more than running them.
_KEY = studies.c.key == bindparam("the_key")
_FIND = select(studies.c.id).where(_KEY)
_STATE = select(studies).where(_KEY)
_HELD = (studies.c.id == bindparam("the_study")) & (studies.c.token == bindparam("the_token"))
_RENEW = update(studies).where(_HELD)
_TRIAL = (trials.c.study == bindparam("the_study")) & (trials.c.number == bindparam("the_number"))
_START = insert(trials)
_AGAIN = update(trials).where(_TRIAL).values(starts=trials.c.starts + 1)
_STARTS = select(trials.c.starts).where(_TRIAL)
_FINISH = update(trials).where(_TRIAL)
_PAUSE = _FINISH.values(starts=0)
_CURVE = (reports.c.study == bindparam("the_study")) & (reports.c.number == bindparam("the_number"))
_FORGET = delete(reports).where(_CURVE & (reports.c.step > bindparam("the_floor")))
_REPORT = insert(reports)
_CORRECT = update(reports).where(_CURVE & (reports.c.step == bindparam("the_step")))

_RESTART = 60.0  # seconds that a server may be away
_PATIENCE = 60.0  # seconds of silence after which a driver elsewhere counts as dead, for those who only look


class Sql:
    """Keeps studies in a database through SQLAlchemy Core.

    SQLite runs in WAL mode with synchronous=NORMAL: what a call has written survives the death of any
    process; a power cut can cost the last moments, never the file (waiting for the disk at each write
    would cost ten times as much). Every write checks the lease in the same transaction, so that a driver
    that was replaced can write no more. A server that restarts is waited for.

    Args:
        place: the path of an SQLite file, or a URL as SQLAlchemy has it; a password never reaches a message.

    Raises:
        StoreError: it cannot be reached, is no database, or was written by a newer version.
    """

    def __init__(self, place: str | Path) -> None:
        parsed = URL.create("sqlite", database=str(place)) if isinstance(place, Path) else _parse(place)
        self.place = str(parsed.database) if parsed.get_backend_name() == "sqlite" else _masked(parsed)
        options = [v for value in parsed.query.values() for v in ([value] if isinstance(value, str) else value)]
        lasting = parsed.get_backend_name() != "sqlite" or parsed.database not in (None, "", ":memory:")
        self.folder = folder_of(place) if lasting else None  # of its studies' checkpoints
        self._secrets = [word for word in (parsed.password, *options) if word and len(word) > 3]
        self._ids: dict[str, int] = {}
        with self._told("opened"):
            if parsed.get_backend_name() == "sqlite":
                Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
            self._engine = _engine(parsed)
            with self._reading() as connection:
                ready = current(connection)
            if not ready:
                with self._engine.begin() as connection:
                    prepare(connection, self.place)

    def studies(self) -> list[State]:
        with self._told("read"), self._reading() as connection:
            rows = connection.execute(select(studies).order_by(studies.c.created, studies.c.id)).all()
            return [_state(row) for row in rows]

    def state(self, name: str) -> State | None:
        with self._told("read"), self._reading() as connection:
            row = connection.execute(_STATE, {"the_key": key(name)}).first()
            return _state(row) if row else None

    def trials(self, name: str) -> list[Trial]:
        mine = self._id(name)
        with self._told("read"), self._reading() as connection:
            curves: dict[int, list[Report]] = {}
            wanted = select(reports.c.number, reports.c.step, reports.c.metrics).where(reports.c.study == mine)
            for number, step, metrics in connection.execute(wanted.order_by(reports.c.number, reports.c.step)):
                curves.setdefault(number, []).append(Report(int(step), _floats(metrics)))
            rows = connection.execute(select(trials).where(trials.c.study == mine).order_by(trials.c.number)).all()
            return [_trial(row, tuple(curves.get(row.number, ()))) for row in rows]

    def create(self, header: Header) -> bool:
        text = json.dumps(asdict(header))
        row = {"key": key(header.name), "header": text, "created": header.created, "spent": 0.0, "beat": 0.0}
        try:
            with self._told("written"), self._engine.begin() as connection:
                connection.execute(insert(studies).values(row))
        except _Twice:
            return False
        return True

    def claim(self, name: str, token: str, patience: float) -> None:
        with self._told("written"), self._engine.begin() as connection:
            row = connection.execute(_STATE.with_for_update(), {"the_key": key(name)}).first()
            if row is None:
                raise lost(name)
            driver = _driver(row, patience)
            if row.token != token and driver is not None:
                raise held(name, driver)
            mine = Lease(token)
            values = {"token": token, "host": mine.host, "pid": mine.pid, "born": mine.born, "beat": time.time()}
            connection.execute(update(studies).where(studies.c.id == row.id).values(values))

    def beat(self, name: str, token: str, spent: float) -> None:
        self._write(name, token, spent=spent)

    def release(self, name: str, token: str) -> None:
        if self.state(name) is not None:
            mine = {"the_study": self._id(name), "the_token": token, "token": None}
            with self._told("written"), self._engine.begin() as connection:
                connection.execute(_RENEW, mine)

    def views(self, name: str) -> dict[int, View]:
        kept = (trials.c.number, trials.c.proposed_by, trials.c.pending, trials.c.level)
        wanted = select(*kept).where(trials.c.study == self._id(name))
        with self._told("read"), self._reading() as connection:
            rows = connection.execute(wanted)
            return {n: View(str(by), _numbers(pending), int(level)) for n, by, pending, level in rows}

    def start(self, name: str, token: str, trial: Trial, view: View) -> int:
        seen = {"proposed_by": view.by, "pending": json.dumps(view.pending), "level": view.level}
        mine = {"study": self._id(name), "number": trial.number, **seen}
        same = {"the_study": self._id(name), "the_number": trial.number}
        begun = {"status": trial.status.value, "params": json.dumps(dict(trial.params)), "started": trial.started}
        values = {**begun, "legs": _written(trial.legs)}
        try:
            self._write(name, token, (_START, {**mine, **values, "starts": 1}))
            return 1
        except _Twice:
            self._write(name, token, (_FORGET, {**same, "the_floor": trial.floor}), (_AGAIN, {**same, **values}))
        with self._told("read"), self._reading() as connection:
            return int(connection.execute(_STARTS, same).scalar_one())

    def report(self, name: str, token: str, number: int, report: Report) -> None:
        mine = {"study": self._id(name), "number": number, "step": report.step}
        metrics = _text(report.metrics)
        try:
            self._write(name, token, (_REPORT, {**mine, "metrics": metrics}))
        except _Twice:
            same = {f"the_{column}": value for column, value in mine.items()}
            self._write(name, token, (_CORRECT, {**same, "metrics": metrics}))

    def finish(self, name: str, token: str, trial: Trial) -> None:
        values = {
            "the_study": self._id(name),
            "the_number": trial.number,
            "status": trial.status.value,
            "metrics": _text(trial.metrics),
            "cause": None if trial.cause is None else trial.cause.replace("\x00", "\\0"),
            "ended": trial.ended,
            "legs": _written(trial.legs),
        }
        self._write(name, token, (_PAUSE if trial.status is Status.PAUSED else _FINISH, values))

    def delete(self, name: str) -> None:
        mine = self._id(name)
        with self._told("written"), self._engine.begin() as connection:
            for table, column in ((reports, reports.c.study), (trials, trials.c.study), (studies, studies.c.id)):
                connection.execute(delete(table).where(column == mine))
        self._ids.pop(name, None)

    def close(self) -> None:
        self._engine.dispose()

    def _id(self, name: str) -> int:
        if name not in self._ids:
            with self._told("read"), self._reading() as connection:
                found = connection.execute(_FIND, {"the_key": key(name)}).scalar()
            if found is None:
                raise lost(name)
            self._ids[name] = int(found)
        return self._ids[name]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            yield connection.execution_options(reading=True)

    def _write(self, name: str, token: str, *steps: tuple[Any, Mapping[str, Any]], **renewed: float) -> None:
        """One transaction, which the lease's holder alone may have, and which renews the lease.

        Each may be done twice with the same result, so that it is tried again while a server restarts.
        """
        until = time.monotonic() + _RESTART
        with self._told("written"):
            while True:
                try:
                    return self._transact(name, token, steps, renewed)
                except exc.OperationalError as error:
                    if self._engine.dialect.name == "sqlite" or time.monotonic() > until or not _gone(error):
                        raise
                    time.sleep(0.5)

    def _transact(
        self, name: str, token: str, steps: Sequence[tuple[Any, Mapping[str, Any]]], renewed: Mapping[str, float]
    ) -> None:
        mine = {"the_study": self._id(name), "the_token": token, "beat": time.time(), **renewed}
        with self._engine.begin() as connection:
            if connection.execute(_RENEW, mine).rowcount != 1:
                raise lost(name)
            for statement, values in steps:
                connection.execute(statement, values)

    @contextlib.contextmanager
    def _told(self, verb: str) -> Iterator[None]:
        """Turns the database's errors into one clear message without secrets."""
        try:
            yield
        except exc.IntegrityError:
            raise _Twice from None
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise StoreError(
                f"the store {self.place} holds a damaged row",
                expected="what Luthier wrote",
                got=f"{type(error).__name__}: {str(error)[:300]}",
                cause="another program changed it",
            ) from None
        except (exc.SQLAlchemyError, OSError) as error:
            origin = getattr(error, "orig", None) or error
            text = " ".join(str(origin).split())
            for secret in self._secrets:
                text = text.replace(secret, "***")
            raise StoreError(
                f"the store {self.place} could not be {verb}",
                expected="a readable and writable database of Luthier's",
                got=f"{type(origin).__name__}: {text[:300]}",
                cause=_likely(text),
                fix="nothing that was finished is lost; put it right and run again",
            ) from None


def _gone(error: exc.OperationalError) -> bool:
    """Whether the server, rather than what was asked of it, is the trouble."""
    return error.connection_invalidated or "onnect" in str(error.orig) or "starting up" in str(error.orig)


class _Twice(Exception):
    """There is such a row already."""


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (exc.ArgumentError, ValueError):
        raise StoreError(
            "the store's URL cannot be read",
            expected="dialect://user:password@host/database",
            got=url.split("://")[0] + "://... (the rest is kept out of messages)",
        ) from None
    except (exc.NoSuchModuleError, ImportError) as error:
        raise StoreError(f"there is no driver for {url.split('://')[0]}://", got=error) from None
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed


def _masked(url: URL) -> str:
    """The URL without password and options, which may hold one too."""
    return url.set(query={}).render_as_string(hide_password=True)


def _engine(url: URL) -> Any:
    if url.get_backend_name() != "sqlite":
        try:
            return create_engine(url, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise StoreError(
                f"the database driver {error.name!r} is not installed",
                expected=f"a driver for {url.drivername}",
                got="no such package",
                fix="pip install 'luthier[postgres]'" if "postgres" in url.drivername else f"pip install {error.name}",
            ) from None
    engine = create_engine(url, connect_args={"timeout": 60, "check_same_thread": False})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says so
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes its lock at once and so waits its turn; upgrading a read later would fail instead."""
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _likely(text: str) -> str | None:
    known = {
        "not a database": "the file is something else",
        "malformed": "the file is damaged",
        "disk is full": "the disk is full",
        "readonly": "no permission to write",
        "unable to open": "no permission, or a missing folder",
        "locked": "another program holds the file open for writing",
        "onnect": "the server is down, or the address is wrong",
    }
    return next((cause for sign, cause in known.items() if sign in text), None)


def _driver(row: Row[Any], patience: float) -> str | None:
    """Who drives a study now, in words."""
    if row.token is None:
        return None
    lease = Lease(row.token, row.host, row.pid, row.born)
    return f"process {row.pid} on {row.host}" if lease.alive(time.time() - row.beat, patience) else None


def _state(row: Row[Any]) -> State:
    header = Header(**json.loads(row.header))
    if not isinstance(header.name, str) or key(header.name) != row.key:
        raise ValueError("the name of a study and its key do not belong together")
    return State(header, float(row.spent), _driver(row, _PATIENCE))


def _trial(row: Row[Any], curve: tuple[Report, ...]) -> Trial:
    """A row as a trial; whatever is not as it was written is an error."""
    metrics = _floats(row.metrics) if row.metrics else {}
    params: dict[str, Any] = json.loads(row.params)
    if not isinstance(params, dict):
        raise TypeError("params are no mapping")
    cause = None if row.cause is None else str(row.cause)
    ended = None if row.ended is None else float(row.ended)
    legs = read_legs(json.loads(row.legs or "[]"))
    return Trial(int(row.number), params, Status(row.status), metrics, curve, cause, float(row.started), ended, legs)


def _written(legs: Sequence[Leg]) -> str | None:
    return json.dumps([[leg.turn, leg.step] for leg in legs]) if legs else None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, json.loads(text)))


def _text(metrics: Mapping[str, float]) -> str:
    """Metrics as JSON, which has no word for NaN and infinities: they are written as texts."""
    return json.dumps({n: v if math.isfinite(v) else str(v) for n, v in metrics.items()})


def _floats(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in json.loads(text).items()}
