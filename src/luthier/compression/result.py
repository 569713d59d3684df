"""What a compression run found: points, each with its files, costs and proofs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from luthier.surgery import Proof
from luthier.words import number, printed

COUNTS = ("parameters", "macs", "bytes")


@dataclass(frozen=True)
class Point:
    """One network: the dense one, or a smaller one on the front.

    Attributes:
        kind: "dense", "pruned" or "distilled".
        trial: its trial's number; None for the dense one.
        path: the folder with model.onnx, model.luthier, plan.json and metrics.json (of the dense one without a plan).
        params: the settings it was made with.
        valid: metrics on the data that chose it.
        test: metrics on the data touched once, through the ONNX file; empty where the task has none.
        cost: parameters, macs (per example), bytes (of model.onnx), latency_ms with latency_low and latency_high.
        ratio: the same as shares of the dense network's.
        cuts: for each width: name, before, after.
        checks: its proofs.
    """

    kind: str
    trial: int | None
    path: Path
    params: Mapping[str, Any]
    valid: Mapping[str, float]
    test: Mapping[str, float]
    cost: Mapping[str, float]
    ratio: Mapping[str, float]
    cuts: tuple[Mapping[str, Any], ...] = ()
    checks: tuple[Proof, ...] = ()

    @property
    def name(self) -> str:
        """As printed: "dense" or "point-07"."""
        return "dense" if self.trial is None else f"point-{self.trial:02d}"

    @property
    def metrics(self) -> Mapping[str, float]:
        """On the test data; on the validation data where there are none."""
        return self.test or self.valid

    def to_json(self) -> dict[str, Any]:
        """As plain values; the path as its last part."""
        rows = [{**asdict(check), "passed": check.passed} for check in self.checks]
        return {**asdict(self), "path": self.path.name, "cuts": list(self.cuts), "checks": rows}

    @classmethod
    def from_json(cls, row: Mapping[str, Any], folder: Path) -> Point:
        """The inverse of :meth:`to_json`."""
        checks = tuple(Proof(c["name"], c["error"], c["limit"], c["words"]) for c in row["checks"])
        return cls(**{**row, "path": folder / row["path"], "cuts": tuple(row["cuts"]), "checks": checks})


@dataclass(frozen=True)
class Result:
    """A compression run's outcome.

    Attributes:
        dense: where it started.
        front: points that none other dominates in metric and latency, best metric first.
        best: within the budget, the best metric, then the fastest; None where no point meets the budget.
        report: report.html.
        note: what a reader should know, in words.
    """

    dense: Point
    front: tuple[Point, ...]
    best: Point | None
    report: Path
    batch_size: int
    note: str = ""

    def __str__(self) -> str:
        return printed(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield front_table(self.dense, self.front, self.best, self.batch_size)
        checks = proof_table(self.front)
        if checks.row_count:
            yield checks
        if self.note:
            yield Text(self.note)


def front_table(dense: Point, front: Sequence[Point], best: Point | None, batch_size: int) -> Table:
    """Every point's metrics and costs, each as value and, below it, as ratio to dense. Fits 80 columns."""
    data = "test" if dense.test else "validation"
    table = Table(
        title=f"Pareto front, {data} data; below each value its ratio to dense. Latency: ONNX Runtime, 1 thread, "
        f"batch {batch_size}, median, ± half its 95 % interval; its ratio is the median of the rounds' ratios",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("point", no_wrap=True)
    for name in (*dense.metrics, "params", "MACs", "bytes", "ms", "±"):
        table.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
    for point in (dense, *front):
        is_best = best is not None and point.trial == best.trial
        table.add_row(*_cells(point, dense, is_best), style="bold green" if is_best else "", end_section=True)
    return table


def _cells(point: Point, dense: Point, is_best: bool) -> list[str]:
    cells = [f"{point.name}{' *' if is_best else ''}\n{point.kind}"]
    for name, value in point.metrics.items():
        reference = dense.metrics[name]
        cells.append(f"{value:.4f}\n{value / reference:.3f}x" if reference else f"{value:.4f}")
    cells += [f"{number(point.cost[n])}\n{point.ratio[n]:.3f}x" for n in COUNTS]
    cells.append(f"{point.cost['latency_ms']:.3f}\n{point.ratio['latency']:.3f}x")
    cells.append(f"{_spread(point.cost, 'latency_ms')}\n{_spread(point.ratio, 'latency')}")
    return cells


def _spread(values: Mapping[str, float], name: str) -> str:
    """Half the width of a median's interval, in percent of it."""
    return f"{(values['latency_high'] - values['latency_low']) / 2 / values[name]:.1%}"


def proof_table(points: Sequence[Point]) -> Table:
    """Each proof, with the worst error over all points."""
    table = Table(
        title=f"Proofs, the worst of {len(points)} file{'s' * (len(points) != 1)}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in ("", "proof", "error", "limit"):
        table.add_column(name, justify="right" if name in ("error", "limit") else "left", no_wrap=True)
    table.add_column("how", style="dim")
    for name in dict.fromkeys(check.name for point in points for check in point.checks):
        checks = [check for point in points for check in point.checks if check.name == name]
        worst = max(checks, key=lambda check: (not check.passed, check.error))
        word = Text("ok", style="green") if worst.passed else Text("FAILED", style="bold red")
        table.add_row(word, name, f"{worst.error:.1e}", f"{worst.limit:.0e}", worst.words)
    return table
