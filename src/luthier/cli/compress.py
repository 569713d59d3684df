"""``luthier compress FILE``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from luthier.cli._network import MULTIPLE, as_mapping, read_network, recipe_of


@click.command(name="compress", short_help="Make a front of smaller, proven networks.")
@click.argument("file", type=click.Path())
@click.option(
    "--budget",
    multiple=True,
    required=True,
    help="latency=, macs=, parameters= or bytes= as a share of the dense network's; or the metric's allowed change, "
    "such as accuracy=-0.01. May be given several times.",
)
@click.option(
    "--trials", type=click.IntRange(1), default=30, show_default=True, help="How many in all, earlier runs included."
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="How many trials run at once.")
@click.option("--out", type=click.Path(), help="Folder for the files. Default: runs/<FILE's name>")
@click.option("--timeout", type=float, help="Seconds for the search in all, earlier runs included.")
@click.option("--batch-size", type=click.IntRange(1), help="Of the latency measurement. Default: 32")
@click.option("--multiple", type=MULTIPLE, help="Widths are kept at multiples of this, or auto. Default: 8")
@click.option("--algorithm", help="See `luthier methods`. Default: auto")
@click.option("--seed", type=int, help="Of everything random. Default: 0")
@click.option("--quiet", is_flag=True, help="Print the outcome only.")
def command(
    file: str, budget: tuple[str, ...], trials: int, workers: int, out: str | None, quiet: bool, **options: Any
) -> None:
    """Compress the network that FILE defines: a front of smaller, faster, proven files.

    FILE is a Python file with functions `model()` and `task()` (a luthier.Task); a dict `recipe`, where it is there,
    says how to train the model first. Run again, the same command goes on where it ended.
    """
    from luthier.compression import compress

    module, model, task = read_network(file)
    recipe = recipe_of(file, module)
    place = Path(out or f"runs/{Path(file).stem}")
    timeout = options.pop("timeout")
    settings = {name: value for name, value in options.items() if value is not None}
    written = "luthier " + shlex.join(sys.argv[1:])
    result = compress(
        model,
        task,
        budget=as_mapping(budget),
        trials=trials,
        timeout=timeout,
        workers=workers,
        out=place,
        recipe=recipe,
        progress=not quiet,
        command=written,
        **settings,
    )
    console = Console()
    console.print(result)
    console.print(f"files: {place}/point-*/   report: {result.report}", highlight=False)


COMMAND = command
