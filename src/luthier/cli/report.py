"""``luthier report RUN``."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from luthier.errors import UsageError
from luthier.report import run_page
from luthier.study import load_study


@click.command(name="report")
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
            f"which study of {run} is meant?",
            expected="a folder of `luthier compress`, or a store and a study's name",
            got=f"{run} alone",
            fix=f"list them with: luthier studies {run}",
        )
    else:
        target = load_study(run, name).report(out or f"{name}.html")
    Console().print(f"report: {target}", highlight=False)


def _of_folder(folder: Path, out: str | None) -> Path:
    content = folder / "run.json"
    if not content.is_file():
        raise UsageError(
            f"{str(folder)!r} holds no finished run",
            expected="run.json, which `luthier compress` writes at its end",
            fix="run the same `luthier compress` again: it goes on where it ended",
        )
    target = Path(out) if out else folder / "report.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(run_page(json.loads(content.read_text())), encoding="utf-8")
    return target


COMMAND = command
