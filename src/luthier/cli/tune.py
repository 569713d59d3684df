"""``luthier tune FILE``."""

from __future__ import annotations

import inspect
import json
import shlex
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from luthier import search
from luthier.cli._load import load_file
from luthier.cli._shell import Interrupted, shown
from luthier.cli._tables import show
from luthier.errors import ObjectiveError, UsageError
from luthier.files import write_text
from luthier.store import clear, key, open_store, root_of
from luthier.study import Study, tune
from luthier.trial import Status

_ARGUMENTS = tuple(n for n in inspect.signature(tune).parameters if n not in ("objective", "space", "progress"))


@click.command(name="tune", short_help="Tune whatever a file defines.")
@click.argument("file", type=click.Path())
@click.option("--algorithm", help="grid, random, bayes, ...: see `luthier methods`. Default: the FILE's, else auto.")
@click.option("--trials", type=int, help="How many in all, earlier runs included.")
@click.option("--timeout", type=float, help="Seconds in all, earlier runs included.")
@click.option("--workers", type=int, help="How many trials run at once.")
@click.option("--replicate", type=int, help="How often the leaders are evaluated again after the search.")
@click.option("--store", help="A path (SQLite) or a database URL. Default: runs/<FILE's name>.db")
@click.option("--name", help="The study's name. Default: <FILE's name>-<algorithm>.")
@click.option("--seed", type=int, help="Of every random stream. Default: 0.")
@click.option("--out", type=click.Path(), help="A folder for best.json, trials.jsonl and report.html.")
@click.option("--fresh", is_flag=True, help="Delete the study of that name first.")
@click.option("--top", type=int, default=60, show_default=True, help="Rows of the table.")
@click.option("--quiet", is_flag=True, help="No progress display.")
def command(file: str, out: str | None, fresh: bool, top: int, quiet: bool, **options: Any) -> None:
    """Tune whatever FILE defines.

    FILE is a Python file with a function `objective(trial)`, a `space`, and one of `maximize = "metric"`,
    `minimize = "metric"` or `objectives = {"metric": "max", ...}`; it may also set the other arguments of
    luthier.tune (trials, stop, workers, ...) by their names. Options given here win. The same command run
    again goes on where the last run ended.
    """
    module = load_file(file, needs=("objective", "space"))
    settings = _settings(file, module, options)
    if fresh:
        _forget(settings["store"], settings["name"])
    study = tune(module.objective, module.space, **settings, progress=not quiet)
    if not study.ranking and not study.interrupted:
        raise _fruitless(study)
    console = Console()
    show(study, console, top)
    if out is not None:
        _write(study, Path(out), console, _command(file, options))
    where = f"study {study.name!r} in {shown(settings['store'])}"
    if study.interrupted:
        raise Interrupted(f"{where} holds {len(study.trials)} trials; the same command goes on from there")
    console.print(Text(f"{where}; the same command with more --trials goes on, --fresh starts over", style="dim"))


def _settings(file: str, module: ModuleType, options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of tune: the FILE's, then the command line's."""
    settings = {name: getattr(module, name) for name in _ARGUMENTS if hasattr(module, name)}
    given = {name: value for name, value in options.items() if value is not None}
    settings.update(given)
    if not any(name in settings for name in ("maximize", "minimize", "objectives")):
        raise UsageError(
            f"{file} does not say what is wanted",
            expected='maximize = "accuracy", minimize = "loss", or objectives = {"accuracy": "max", ...}',
            got="none of the three at the top level of the file",
        )
    algorithm = settings.setdefault("algorithm", "auto")
    if algorithm == "grid" and "trials" not in given:
        settings.pop("trials", None)  # a grid is as large as it is
    search.get(algorithm)
    stem = Path(file).stem
    label = algorithm if isinstance(algorithm, str) else type(algorithm).__name__.lower()
    seed = settings.get("seed", 0)
    settings.setdefault("store", f"runs/{stem}.db")
    settings.setdefault("name", f"{stem}-{label}" + (f"-seed{seed}" if seed else ""))
    return settings


def _fruitless(study: Study) -> ObjectiveError:
    """The error for a study in which nothing completed."""
    causes = Counter(t.cause for t in study.trials if t.status is Status.FAILED)
    failed = causes.total()
    return ObjectiveError(
        f"no trial of study {study.name!r} completed",
        expected="at least one result",
        got=f"{failed} of {len(study.trials)} trials failed",
        cause=causes.most_common(1)[0][0] if causes else None,
        fix='correct the objective, then run with --fresh; on_error = "raise" in the FILE shows the first traceback',
    )


def _forget(place: Any, name: str) -> None:
    store = open_store(place)
    try:
        state = store.state(name)
        if state is not None and state.driver is not None:
            raise UsageError(f"the study {name!r} is being driven by {state.driver}", fix="stop it first")
        if state is not None:
            store.delete(name)
            root = root_of(place, state.header)
            if root is not None:
                clear(root / key(name))
    finally:
        store.close()


def _command(file: str, options: dict[str, Any]) -> str:
    """The command line again; of a database's URL no more than its kind."""
    words = ["luthier", "tune", file]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", shown(value) if name == "store" else str(value)]
    return shlex.join(words)


def _write(study: Study, out: Path, console: Console, again: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    best = study.best
    params = study.space.dump(best.params)
    facts = {"study": study.name, "trial": best.number, "params": params, "metrics": dict(best.metrics)}
    if best.estimates:
        facts["estimates"] = {name: asdict(each) for name, each in best.estimates.items()}
    write_text(out / "best.json", json.dumps(facts, indent=2) + "\n")
    study.report(out / "report.html", again)
    study.export(out / "trials.jsonl")
    console.print(Text(f"written: {out}/best.json, {out}/trials.jsonl, {out}/report.html"))


COMMAND = command
