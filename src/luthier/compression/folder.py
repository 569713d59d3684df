"""The folder of a compression run: it holds that run and no other, and one process at a time writes to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from luthier.compression.result import Point, Result
from luthier.errors import StoreError, UsageError
from luthier.files import write_json, write_text
from luthier.report import run_page

VERSION = 1


@dataclass(frozen=True)
class RunFolder:
    """A run's folder; what was trained, tried and proven before lies in it.

    Args:
        path: made where it is not there.
        identity: what makes two runs the same one.

    Raises:
        UsageError: it holds another run, or files that are none of ours.
        OutputError: it cannot be written.
    """

    path: Path
    identity: Mapping[str, Any]

    def __post_init__(self) -> None:
        marker = self.path / "settings.json"
        if marker.is_file():
            self._check(marker)
            return
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UsageError(
                f"{str(self.path)!r} is there already and is no run of Luthier's",
                expected="a new or empty folder",
                fix="choose another --out",
            )
        write_json(marker, self.identity)

    def _check(self, marker: Path) -> None:
        try:
            there = dict(json.loads(marker.read_text()))
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"{str(marker)!r} cannot be read",
                expected="what an earlier run wrote",
                cause=error,
                fix="choose another --out, or delete the folder",
            ) from error
        differing = [k for k in self.identity if there.get(k) != json.loads(json.dumps(self.identity[k]))]
        if differing:
            name = differing[0]
            raise UsageError(
                f"the folder {str(self.path)!r} holds another run",
                expected=f"{name} = {there.get(name)}",
                got=f"{name} = {self.identity[name]}",
                fix="choose another --out, or delete the folder",
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps every other process out until the block, or this process, ends.

        Raises:
            StoreError: another process is in it.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(
                f"the folder {str(self.path)!r} is in use",
                cause="another process is compressing into it",
                fix="wait for it to end, or choose another --out",
            ) from None
        try:
            yield
        finally:
            lock.release()

    def finished(self, trials: int) -> Result | None:
        """The outcome of an earlier run of as many trials, if it is whole.

        Raises:
            UsageError: a newer version wrote it.
        """
        place = self.path / "run.json"
        try:
            content = json.loads(place.read_text())
            version = int(content["version"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # not there yet, or damaged: it is made again from the store
        if version > VERSION:
            raise UsageError(
                f"{str(place)!r} was written by a newer Luthier",
                expected=f"version {VERSION} or older",
                got=f"version {version}",
                fix="update Luthier, or choose another --out",
            )
        if version < VERSION or len(content["trials"]) < trials:
            return None
        found = self._result(content)
        needed = [found.report, *(p.path / "model.onnx" for p in (found.dense, *found.front))]
        return found if all(path.is_file() for path in needed) else None

    def finish(self, content: Mapping[str, Any]) -> Result:
        """Writes the report and, last, what marks the run as finished."""
        whole = {"version": VERSION, **content}
        write_text(self.path / "report.html", run_page(whole))
        write_json(self.path / "run.json", whole)
        return self._result(whole)

    def _result(self, content: Mapping[str, Any]) -> Result:
        points = tuple(Point.from_json(row, self.path) for row in content["front"])
        return Result(
            dense=Point.from_json(content["dense"], self.path),
            front=points,
            best=next((p for p in points if p.trial == content["best"]), None),
            report=self.path / "report.html",
            batch_size=content["settings"]["batch_size"],
            note=content["note"],
        )
