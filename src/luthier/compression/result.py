"""What a compression run found: points, each with its files, costs and proofs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from luthier.surgery import Proof

COUNTS = ("parameters", "macs", "bytes")


@dataclass(frozen=True)
class Point:
    """One network: the dense one, or a smaller one on the front.

    Attributes:
        kind: "dense", "pruned" or "distilled".
        trial: its trial's number; None for the dense one.
        path: the folder with model.onnx, model.luthier, plan.json and metrics.json.
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

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield front_table(self.dense, self.front, self.best, self.batch_size)
        checks = proof_table(self.front)
        if checks.row_count:
            yield checks
        if self.note:
            yield Text(self.note)


def number(value: float) -> str:
    """A count as people read it.

    Example:
        >>> number(2_412_000), number(950)
        ('2.41 M', '950')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def front_table(dense: Point, front: Sequence[Point], best: Point | None, batch_size: int) -> Table:
    """Every point's metrics and costs, each as value and as ratio to dense."""
    data = "test" if dense.test else "validation"
    table = Table(
        title=f"Pareto front ({data} data; latency: ONNX Runtime, 1 thread, batch {batch_size}, "
        "median [95 % interval], x = ratio to dense)",
        title_justify="left",
    )
    table.add_column("point", no_wrap=True)
    for name in dense.metrics:
        table.add_column(name.replace("_", " "), justify="right")
    for name in ("parameters", "MACs", "bytes"):
        table.add_column(name, justify="right")
    table.add_column("latency ms", justify="right")
    table.add_column("latency x", justify="right")
    for point in (dense, *front):
        style = "bold green" if best is not None and point.trial == best.trial else "dim" if point is dense else ""
        table.add_row(*_cells(point, dense, is_best=best is not None and point.trial == best.trial), style=style)
    return table


def _cells(point: Point, dense: Point, is_best: bool) -> list[str]:
    mark = " *" if is_best else ""
    cells = [f"{point.name}{mark}\n{point.kind}"]
    for name, value in point.metrics.items():
        cells.append(f"{value:.4f}\n{_ratio(value, dense.metrics[name])}")
    cells += [f"{number(point.cost[n])}\n{point.ratio[n]:.2f} x" for n in COUNTS]
    c, r = point.cost, point.ratio
    cells.append(f"{c['latency_ms']:.3f}\n[{c['latency_low']:.3f}, {c['latency_high']:.3f}]")
    cells.append(f"{r['latency']:.3f}\n[{r['latency_low']:.3f}, {r['latency_high']:.3f}]")
    return cells


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.3f} x" if reference else ""


def proof_table(points: Sequence[Point]) -> Table:
    """Every point's proofs."""
    table = Table(title="Proofs", title_justify="left")
    table.add_column("point", no_wrap=True)
    names = list(dict.fromkeys(check.name for point in points for check in point.checks))
    for name in names:
        table.add_column(name, justify="right")
    for point in points:
        by_name = {check.name: check for check in point.checks}
        table.add_row(point.name, *(_proof(by_name.get(name)) for name in names))
    return table


def _proof(check: Proof | None) -> Text:
    if check is None:
        return Text("-")
    word = "ok" if check.passed else "FAILED"
    return Text(f"{word}  {check.error:.1e} <= {check.limit:.0e}", style="green" if check.passed else "bold red")
