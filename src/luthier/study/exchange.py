"""Studies as JSON Lines, and copies between stores."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from luthier.errors import LuthierError, StoreError, UsageError
from luthier.files import whole
from luthier.objectives import Objectives
from luthier.space import Space
from luthier.store import Header, Store, View, check_name, short
from luthier.trial import Report, Status, Trial, read_legs

FORMAT = 2

Entry = tuple[Trial, View]


def write(path: Path, header: Header, entries: Iterable[Entry]) -> None:
    """One line for the study, then one per trial; the file appears whole or not at all."""
    with whole(path) as draft, draft.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"luthier_study": FORMAT, **asdict(header)}) + "\n")
        for trial, view in entries:
            file.write(json.dumps(_row(trial, view)) + "\n")


def read(path: Path) -> tuple[Header, list[Entry]]:
    """The inverse of :func:`write`.

    Raises:
        StoreError: not such a file, one of a newer version, or a damaged line; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"the file {path} cannot be read", got=error) from None
    header = _header(path, lines[0] if lines else "")
    entries = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            entries.append(_entry(json.loads(line)))
            if entries[-1][0].number != number - 2:
                raise ValueError(f"trial {number - 2} was expected here")
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise StoreError(
                f"line {number} of {path} is damaged",
                expected="a trial as Study.export wrote it",
                got=f"{type(error).__name__}: {str(error)[:300]}",
            ) from None
    return header, entries


def _header(path: Path, line: str) -> Header:
    try:
        row = json.loads(line)
        version = row.pop("luthier_study")
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        raise StoreError(
            f"{path} is not a study", expected="a file that Study.export wrote", got=short(line) or "an empty file"
        ) from None
    if not isinstance(version, int) or version > FORMAT:
        raise StoreError(
            f"{path} was written by a newer version of Luthier", expected=f"format {FORMAT} or older", got=version
        )
    try:
        header = Header(**row)
    except TypeError as error:
        raise StoreError(f"the first line of {path} is damaged", got=error) from None
    understood(header)
    return header


def understood(header: Header) -> tuple[Space, Objectives]:
    """The space and the objectives that a header tells of.

    Raises:
        StoreError: it was not Luthier that wrote it.
    """
    try:
        check_name(header.name)
        wanted = Objectives.of(objectives=header.objectives["directions"], constraints=header.objectives["constraints"])
        if not isinstance(header.created, int | float) or not isinstance(header.settings["algorithm"], str):
            raise TypeError("created and algorithm are a number and a text")
        int(header.settings["seed"])
        return Space.from_json(header.space), wanted
    except (LuthierError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise StoreError(
            f"the description of the study {short(str(header.name))!r} is damaged",
            expected="what Luthier wrote: a space, objectives and settings",
            got=f"{type(error).__name__}: {str(error)[:300]}",
            cause="another program wrote or changed it",
        ) from None


def _row(trial: Trial, view: View) -> dict[str, Any]:
    return {
        "number": trial.number,
        "status": trial.status.value,
        "params": dict(trial.params),
        "metrics": _plain(trial.metrics),
        "reports": [[r.step, _plain(r.metrics)] for r in trial.reports],
        "cause": trial.cause,
        "started": trial.started,
        "ended": trial.ended,
        "proposed_by": view.by,
        "pending": list(view.pending),
        "level": view.level,
        "legs": [[leg.turn, leg.step] for leg in trial.legs],
    }


def _entry(row: Mapping[str, Any]) -> Entry:
    reports = tuple(Report(int(step), _floats(metrics)) for step, metrics in row["reports"])
    trial = Trial(
        int(row["number"]),
        dict(row["params"]),
        Status(row["status"]),
        _floats(row["metrics"]),
        reports,
        None if row["cause"] is None else str(row["cause"]),
        float(row["started"]),
        None if row["ended"] is None else float(row["ended"]),
        read_legs(row.get("legs", ())),
    )
    return trial, View(str(row["proposed_by"]), tuple(int(n) for n in row["pending"]), int(row.get("level", 0)))


def _plain(metrics: Mapping[str, float]) -> dict[str, float | str]:
    return {n: v if math.isfinite(v) else str(v) for n, v in metrics.items()}


def _floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {str(n): float(v) for n, v in metrics.items()}


def put(store: Store, header: Header, entries: Iterable[Entry], name: str | None) -> None:
    """Adds a study to a store, under another name if one is given.

    Raises:
        UsageError: there is a study of that name.
    """
    mine = replace(header, name=check_name(header.name if name is None else name))
    if not store.create(mine):
        raise UsageError(
            f"there is a study {short(mine.name)!r} already", expected="a name that is free", fix="give another name"
        )
    token = uuid.uuid4().hex
    store.claim(mine.name, token, 0.0)
    try:
        for trial, view in entries:
            begun = Trial(trial.number, trial.params, started=trial.started, legs=trial.legs)
            store.start(mine.name, token, begun, view)
            for report in trial.reports:
                store.report(mine.name, token, trial.number, report)
            if trial.status is not Status.RUNNING:
                store.finish(mine.name, token, trial)
    finally:
        store.release(mine.name, token)
