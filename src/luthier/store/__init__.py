"""Stores: where a study's history lives. A narrow contract, driven by one writer at a time."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from luthier.errors import StoreError, UsageError
from luthier.trial import Report, Trial


@dataclass(frozen=True)
class Header:
    """What a study is; written once.

    Attributes:
        name: the study's name within its store.
        space: the search space, see :meth:`luthier.space.Space.to_json`.
        objectives: ``{"directions": {"accuracy": "max"}, "constraints": {"mb": "<= 1"}}``.
        settings: what else is worth keeping, such as the algorithm's name, the seed and the lag.
        created: seconds since 1970 (UTC).
    """

    name: str
    space: Mapping[str, Any]
    objectives: Mapping[str, Any]
    settings: Mapping[str, Any]
    created: float


@dataclass(frozen=True)
class Lease:
    """The right to drive a study.

    Attributes:
        token: tells this claim from every other one.
        host: machine of the driver.
        pid: its process.
        born: when that process was started, seconds since 1970; tells it from a later one of the same pid.
    """

    token: str
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    born: float = field(default_factory=lambda: psutil.Process().create_time())

    def alive(self, silence: float, patience: float) -> bool:
        """Whether the driver still lives, as far as can be told from here.

        Args:
            silence: seconds since its last sign of life.
            patience: seconds of silence after which a driver elsewhere counts as dead.
        """
        if self.host != socket.gethostname():
            return silence < patience
        try:
            return bool(abs(psutil.Process(self.pid).create_time() - self.born) < 1.0)
        except psutil.Error:
            return False


@dataclass(frozen=True)
class State:
    """Where a study stands.

    Attributes:
        header: what it is.
        spent: seconds that it has been driven, all drivers together.
        driver: the live driver's "process 123 on host", or None.
    """

    header: Header
    spent: float = 0.0
    driver: str | None = None


@dataclass(frozen=True)
class View:
    """What a proposal was made from, besides the key: enough to make it again.

    Attributes:
        by: "algorithm", "user" for configurations given to be tried first, or "repeat" for a trial that evaluates an
            earlier one's values again.
        pending: of a repeat the number of that earlier trial, alone; else turns (see :class:`luthier.trial.Leg`; where
            no trial pauses, the numbers) of the earlier runs that had not ended; all other earlier ones had.
        level: how far the algorithm had been made cheaper, see :mod:`luthier.study.governor`.
    """

    by: str = "algorithm"
    pending: tuple[int, ...] = ()
    level: int = 0


class Store(Protocol):
    """What every store does. Each call that writes has written for good when it returns."""

    def studies(self) -> list[State]:
        """Every study, by time of creation."""
        ...

    def state(self, name: str) -> State | None:
        """One study, or None where there is none of that name."""
        ...

    def trials(self, name: str) -> list[Trial]:
        """A study's trials by number, with params as :meth:`luthier.space.Space.dump` wrote them."""
        ...

    def create(self, header: Header) -> bool:
        """Adds a study; False where there is one of that name."""
        ...

    def claim(self, name: str, token: str, patience: float) -> None:
        """Takes the lease.

        Raises:
            StoreError: another driver lives; names its process and host.
        """
        ...

    def beat(self, name: str, token: str, spent: float) -> None:
        """Renews the lease and records the seconds spent.

        Raises:
            StoreError: somebody else holds it now.
        """
        ...

    def release(self, name: str, token: str) -> None:
        """Gives the lease back; nothing happens where it is somebody else's."""
        ...

    def start(self, name: str, token: str, trial: Trial, view: View) -> int:
        """Records a trial before it runs; one that is there already keeps its view.

        It goes on from its last pause, afresh if there was none: later reports are forgotten.

        Returns:
            how often it was started since it last paused.
        """
        ...

    def views(self, name: str) -> dict[int, View]:
        """What each trial's proposal was made from, by number."""
        ...

    def report(self, name: str, token: str, number: int, report: Report) -> None:
        """Adds one report."""
        ...

    def finish(self, name: str, token: str, trial: Trial) -> None:
        """Records how a trial ended or that it paused; its reports are there already."""
        ...

    def delete(self, name: str) -> None:
        """Removes a study and its trials for good."""
        ...

    def close(self) -> None:
        """Lets go of files and connections."""
        ...


def key(name: str) -> str:
    """A short name for a study whose own may be ten thousand characters long, for indices and folders."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def open_store(place: str | os.PathLike[str] | Store | None, create: bool = True) -> Store:
    """The store at a place.

    Args:
        place: None: memory; a path: SQLite; a URL: any database that SQLAlchemy knows; a store: itself.
        create: whether a missing file is made.

    Raises:
        StoreError: it cannot be opened, is no store, or was written by a newer version.
    """
    if place is None:
        from luthier.store.memory import Memory

        return Memory()
    if isinstance(place, str | os.PathLike):
        from luthier.store.sql import Sql

        return Sql(located(place, create))
    if not callable(getattr(place, "finish", None)):
        raise UsageError("the store is neither a path nor a URL", expected='"studies.db"', got=repr(place))
    return place


def located(place: str | os.PathLike[str], create: bool) -> str | Path:
    """A URL as it is, or the whole path of a file.

    Raises:
        StoreError: a folder, an empty path, or no such file where none is to be made.
    """
    text = os.fspath(place)
    if "://" in text:
        return text
    path = Path(text).expanduser()
    if not text.strip() or path.is_dir():
        raise StoreError(
            "the store is not a file",
            expected='a path such as "runs/studies.db"',
            got=f"the folder {text}" if text.strip() else "an empty path",
        )
    if not create and not path.exists():
        raise StoreError(
            f"there is no store {text}",
            expected="an existing file",
            got=f"no such file (looked in {Path.cwd()})",
            fix="check the path, or run the study first",
        )
    return path.absolute()


def folder_of(place: str | os.PathLike[str] | Store | None) -> Path | None:
    """Where checkpoints of a store's studies live; None: they do not outlive the process.

    A store that is given as an object says so itself, by an attribute ``folder``.
    """
    if not isinstance(place, str | os.PathLike):
        folder = getattr(place, "folder", None)
        return folder if isinstance(folder, Path) else None
    text = os.fspath(place)
    if "://" not in text:
        return Path(text).expanduser().absolute().with_name(Path(text).name + ".checkpoints")
    return Path.cwd() / "luthier.checkpoints"


def root_of(place: str | os.PathLike[str] | Store | None, header: Header) -> Path | None:
    """Where a study's checkpoints live; None: they do not outlive the process."""
    told = header.settings.get("checkpoints")
    return Path(str(told)) if told else folder_of(place)


def clear(folder: Path) -> None:
    """Removes checkpoints that an earlier study of the name left behind, if there are any.

    Raises:
        StoreError: they cannot be removed.
    """
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StoreError(f"old checkpoints in {folder} cannot be removed", got=error, fix="remove them") from None


def held(name: str, driver: str) -> StoreError:
    """The error for a study that somebody else drives."""
    return StoreError(
        f"the study {short(name)!r} is being driven by {driver}",
        expected="one driver at a time",
        got="a second one",
        fix="wait for it, stop it, or choose another name; its lease ends with it",
    )


def lost(name: str) -> StoreError:
    """The error for a driver that has been replaced."""
    return StoreError(
        f"the lease on the study {short(name)!r} was lost",
        expected="to be its only driver",
        got="another driver took over, or the study was deleted",
        cause="this process was suspended for longer than its lease",
        fix="nothing finished is lost; run again to join once the other driver is done",
    )


def short(name: str, width: int = 60) -> str:
    """A name that fits into a line."""
    return name if len(name) <= width else name[: width - 3] + "..."


def check_name(name: object) -> str:
    """Reads a study's name: any text that can be written, of any length.

    Raises:
        UsageError: empty, no text, or characters that no database can hold.
    """
    good = isinstance(name, str) and name.strip() != "" and "\x00" not in name
    try:
        str(name).encode()
    except UnicodeEncodeError:
        good = False
    if not good:
        raise UsageError("the study's name cannot be used", expected="a text without NUL characters", got=repr(name))
    return str(name)
