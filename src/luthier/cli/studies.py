"""``luthier studies STORE``."""

from __future__ import annotations

import time
from collections import Counter

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from luthier.cli._tables import show, text
from luthier.errors import StoreError
from luthier.store import State, Store, open_store, short
from luthier.study import Study, load_study
from luthier.trial import Status


@click.command(name="studies", short_help="List the studies of a store.")
@click.argument("store")
@click.argument("name", required=False)
@click.option("--top", type=int, default=60, show_default=True, help="Rows of the table.")
def command(store: str, name: str | None, top: int) -> None:
    """List the studies in STORE (a path or a URL), running ones included; with NAME, show one of them."""
    console = Console()
    if name is not None:
        show(load_study(store, name), console, top)
        return
    opened = open_store(store, create=False)
    try:
        states = opened.studies()
        console.print(_table(opened, states) if states else Text("no studies yet"))
    finally:
        opened.close()


def _table(store: Store, states: list[State]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("study", "trials", "best", "spent", "begun", "driver"):
        number = title in ("trials", "spent")
        table.add_column(title, justify="right" if number else "left", no_wrap=title == "study")  # names are copied
    for state in states:
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(state.header.created))
        try:
            facts = _facts(load_study(store, state.header.name))
        except StoreError as error:  # one bad study must not hide the others
            facts = ("damaged", error.what)
        table.add_row(
            *map(Text, (short(state.header.name), *facts, f"{state.spent:.0f} s", begun, state.driver or "-"))
        )
    return table


def _facts(study: Study) -> tuple[str, str]:
    """How many trials there are of each kind, and the best measurement."""
    kinds = Counter(t.status for t in study.trials)
    trials = ", ".join(f"{kinds[s]} {s.value}" for s in Status if kinds[s]) or "none"
    wanted = study.objectives.names
    if not study.objectives.complete(study.trials):
        return trials, "-"
    if len(wanted) > 1:
        return trials, f"front of {len(study.front)}"
    best = study.best_measured  # as a list of many studies can afford it: no model is fitted
    return trials, ", ".join(f"{n} {text(best.metrics[n])}" for n in wanted)


COMMAND = command
