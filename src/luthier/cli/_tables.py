"""Trials as tables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from luthier.study import Study
from luthier.trial import Estimate, Status, Trial

_ROWS = 60


def show(study: Study, console: Console, rows: int = _ROWS) -> None:
    """Prints the best configuration (or the front), the others, and what failed."""
    ranking = study.ranking
    front = study.front
    if not ranking:
        console.print(Text("no trial has completed", style="red"))
    elif len(study.objectives.names) == 1:
        console.print(_card(study, front[0] if front else ranking[0]))
        _others(study, ranking[1:], console, rows)
    else:
        console.print(_table(study, front, f"The front: {len(front)} of {len(ranking)} trials"))
        numbers = {t.number for t in front}
        _others(study, [t for t in ranking if t.number not in numbers], console, rows)
    _failures(study, console)


def _card(study: Study, best: Trial) -> Panel:
    grid = Table.grid(padding=(0, 2))
    for name, value in best.params.items():
        grid.add_row(Text(name), Text(text(value), style="bold"))
    metrics = Text(", ".join(f"{n} {text(v)}" for n, v in best.metrics.items()), style="bold green")
    known = [Text(f"{n} without noise: {e}, by {_source(e)}", style="green") for n, e in best.estimates.items()]
    lack = study.objectives.violation(best.metrics)
    warning = [Text("it breaks a constraint; none of the trials keeps them all", style="red")] if lack > 0 else []
    head = f"Best configuration: trial {best.number} of {len(study.trials)}"
    return Panel(
        Group(metrics, *known, *warning, grid), title=Text(head, style="bold"), title_align="left", expand=False
    )


def _source(estimate: Estimate) -> str:
    return f"{estimate.count} repeats" if estimate.by == "repeats" else "a model of all trials"


def _others(study: Study, trials: Sequence[Trial], console: Console, rows: int) -> None:
    if not trials:
        return
    shown = trials[:rows]
    console.print(_table(study, shown, "The others, best first"))
    if len(trials) > len(shown):
        console.print(Text(f"... and {len(trials) - len(shown)} more", style="dim"))


def _table(study: Study, trials: Sequence[Trial], title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("trial", justify="right", style="dim")
    metrics = list(dict.fromkeys([*study.objectives.required, *(n for t in trials for n in t.metrics)]))
    for name in metrics:
        table.add_column(Text(name), justify="right", style="green" if name in study.objectives.names else "")
    for name in study.space.names:
        table.add_column(Text(name), justify="right")
    table.add_column("seconds", justify="right", style="dim")
    for t in trials:
        cells = [_cell(t.metrics, n) for n in metrics] + [_cell(t.params, n) for n in study.space.names]
        table.add_row(str(t.number), *map(Text, cells), f"{t.seconds or 0:.2f}")
    return table


def _cell(values: Mapping[str, Any], name: str) -> str:
    return text(values[name]) if name in values else "-"


def _failures(study: Study, console: Console) -> None:
    stopped = sum(t.status is Status.STOPPED for t in study.trials)
    if stopped:
        console.print(Text(f"{stopped} stopped early", style="dim"))
    paused = sum(t.status is Status.PAUSED for t in study.trials)
    if paused:
        console.print(Text(f"{paused} paused", style="dim"))
    causes = Counter(t.cause for t in study.trials if t.status is Status.FAILED)
    for cause, times in causes.most_common(5):
        console.print(Text(f"{times} failed: {cause}", style="red"))


def text(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, float):
        return f"{value:.4f}" if 0.001 <= abs(value) < 1000 else f"{value:.4g}"
    plain = str(value)
    return plain if len(plain) <= 40 else plain[:37] + "..."
