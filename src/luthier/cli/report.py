"""``luthier report RUN``."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from luthier.cli._shell import shown
from luthier.errors import MissingExtra, StoreError, UsageError
from luthier.files import write_text
from luthier.report import run_page
from luthier.study import load_study


@click.command(name="report", short_help="Write the page of a run or a study.")
@click.argument("run", type=click.Path())
@click.argument("name", required=False)
@click.option("--out", type=click.Path(), help="Where to write the page. Default: beside what it shows.")
def command(run: str, name: str | None, out: str | None) -> None:
    """Write the page over RUN: a folder of `luthier compress`, or a store of studies and a study's NAME."""
    place = Path(run)
    if not place.exists() and "://" not in run:
        raise UsageError(f"there is no {run!r}", expected="a folder of `luthier compress`, or a store")
    if place.is_dir():
        target = _of_folder(place, out)
    elif name is None:
        raise UsageError(
            f"which study of {shown(run)} is meant?",
            expected="a folder of `luthier compress`, or a store and a study's name",
            got="the store alone",
            fix=f"list them with: luthier studies {shown(run)}",
        )
    else:
        target = load_study(run, name).report(out or f"{_file_name(name)}.html")
    Console().print(f"report: {target}", highlight=False)


def _file_name(name: str) -> str:
    """A study's name as that of a file in this folder, whatever it holds."""
    plain = "".join(c if c.isalnum() or c in "-_. " else "-" for c in name)[:80].strip(". ")
    return plain or "study"


def _of_folder(folder: Path, out: str | None) -> Path:
    place = folder / "run.json"
    if not place.is_file():
        raise UsageError(
            f"{str(folder)!r} holds no finished run",
            expected="run.json, which `luthier compress` writes at its end",
            fix="run the same `luthier compress` again: it goes on where it ended",
        )
    page = _page(place)
    return write_text(Path(out) if out else folder / "report.html", page)


def _page(place: Path) -> str:
    """The page over a run.json, which may come from anywhere."""
    from luthier.compression.folder import VERSION

    try:
        content = json.loads(place.read_text(encoding="utf-8"))
        version = int(content["version"])
        if version <= VERSION:
            return run_page(content)
    except MissingExtra:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(
            f"{place} is damaged",
            expected="what `luthier compress` wrote",
            got=f"{type(error).__name__}: {str(error)[:200]}",
            fix="run the same `luthier compress` again: it writes the file anew from what is stored",
        ) from None
    raise StoreError(
        f"{place} was written by a newer version of Luthier",
        expected=f"version {VERSION} or older",
        got=f"version {version}",
        fix="pip install --upgrade luthier",
    )


COMMAND = command
