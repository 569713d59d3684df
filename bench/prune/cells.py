"""Cells of a table, each stored as soon as it is known: a killed run goes on where it ended."""

import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path


class Cells:
    """Lines of JSON in a file, one a cell, by name.

    Args:
        path: the file.
        only: a regular expression; cells that it is not found in are left for another run.
    """

    def __init__(self, path: Path, only: str = "") -> None:
        self.path, self.only = path, re.compile(only)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.is_file() else []
        self.known = {row["cell"]: row for row in map(json.loads, lines)}

    def __call__(self, cell: str, compute: Callable[[], dict]) -> dict:
        """A cell's values; computed where they are not there yet."""
        if cell not in self.known and not self.only.search(cell):
            return {}
        if cell not in self.known:
            start = time.process_time()
            row = {"cell": cell, **compute(), "cpu_seconds": round(time.process_time() - start, 1)}
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            self.known[cell] = row
            print(row, flush=True)
        return self.known[cell]


def pivot(known: dict[str, dict], kept: list[float], value: str, prefix: str) -> list[str]:
    """Rows of a Markdown table: one for each name, a column for each share of MACs; means over seeds."""
    names: dict[str, dict[float, list[float]]] = {}
    for cell, row in known.items():
        kind, name, share, _seed = cell.split("|")
        if kind == prefix and value in row:
            names.setdefault(name, {}).setdefault(float(share), []).append(row[value])
    lines = [f"| {prefix} | " + " | ".join(f"{k:g}" for k in kept) + " |", "|---|" + "---|" * len(kept)]
    for name, by_share in names.items():
        lines.append(f"| {name} | " + " | ".join(_cell(by_share.get(k, [])) for k in kept) + " |")
    return lines


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"
