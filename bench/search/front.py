"""Several objectives: the hypervolume reached by Luthier and by other libraries.

ZDT1-3 of six numbers, the same with a whole number and a category mixed in, DTLZ2 with three objectives, and a real
one: a random forest on 600 handwritten digits, its error against the logarithm of its size.

Each library runs in an environment of its own and adds to the same file; the table is made from the file:

OMP_NUM_THREADS=1 python bench/search/front.py run luthier_bayes luthier_nsga2 luthier_tpe --out front.jsonl
OMP_NUM_THREADS=1 /path/to/peers/python bench/search/front.py run optuna_gp optuna_tpe pymoo_nsga2 --out front.jsonl
python bench/search/front.py table front.jsonl
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peers

Losses = Callable[[Mapping[str, Any]], list[float]]


def zdt(kind: int, mixed: bool) -> Losses:
    """Zitzler, Deb and Thiele, 2000; mixed: one whole number and one category stand for two of the numbers in g."""

    def losses(p: Mapping[str, Any]) -> list[float]:
        rest = [p[f"x{i}"] for i in range(1, 5 if mixed else 6)]
        if mixed:
            rest += [abs(p["k"] - 3) / 9, {"a": 0.6, "b": 0.0, "c": 0.3}[p["c"]]]
        f, g = p["x0"], 1 + 9 * sum(rest) / len(rest)
        shape = {1: 1 - math.sqrt(f / g), 2: 1 - (f / g) ** 2}
        third = 1 - math.sqrt(f / g) - f / g * math.sin(10 * math.pi * f)
        return [f, g * shape.get(kind, third)]

    return losses


def dtlz2(p: Mapping[str, Any]) -> list[float]:
    """Deb, Thiele, Laumanns and Zitzler, 2002; three objectives, five numbers."""
    a, b = p["x0"] * math.pi / 2, p["x1"] * math.pi / 2
    r = 1 + sum((p[f"x{i}"] - 0.5) ** 2 for i in range(2, 5))
    return [r * math.cos(a) * math.cos(b), r * math.cos(a) * math.sin(b), r * math.sin(a)]


@functools.cache
def _digits() -> tuple[np.ndarray, ...]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    train, valid = order[:300], order[300:600]
    return x[train], y[train], x[valid], y[valid]


def forest(p: Mapping[str, Any]) -> list[float]:
    """Error on 300 digits of a forest grown on 300 others, and the logarithm (base 10) of its number of nodes."""
    from sklearn.ensemble import RandomForestClassifier

    x, y, x_valid, y_valid = _digits()
    model = RandomForestClassifier(
        n_estimators=round(10 ** p["trees"]),
        max_depth=p["depth"],
        max_features=p["features"],
        min_samples_leaf=p["leaf"],
        criterion=p["criterion"],
        random_state=0,
    ).fit(x, y)
    size = sum(tree.tree_.node_count for tree in model.estimators_)
    return [1.0 - float(model.score(x_valid, y_valid)), math.log10(size)]


def _numbers(n: int) -> peers.Spec:
    return {f"x{i}": ("float", 0.0, 1.0) for i in range(n)}


_MIXED = {**_numbers(5), "k": ("int", 0, 9), "c": ("choice", ["a", "b", "c"])}
_FOREST = {
    "trees": ("float", 0.0, 1.5),
    "depth": ("int", 1, 15),
    "features": ("float", 0.02, 1.0),
    "leaf": ("int", 1, 20),
    "criterion": ("choice", ["gini", "entropy"]),
}
PROBLEMS: dict[str, tuple[Losses, peers.Spec, list[float]]] = {
    **{f"ZDT{k}": (zdt(k, False), _numbers(6), [1.1, 7.0]) for k in (1, 2, 3)},
    **{f"ZDT{k}, mixed": (zdt(k, True), _MIXED, [1.1, 7.0]) for k in (1, 2, 3)},
    "DTLZ2": (dtlz2, _numbers(5), [2.0, 2.0, 2.0]),
    "Forest": (forest, _FOREST, [1.0, 4.0]),
}


def volume(losses: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Hypervolume by slicing the last objective: slow, short, and the same for every library."""
    inside = sorted((p for p in losses if all(a < b for a, b in zip(p, reference, strict=True))), key=lambda p: p[-1])
    if not inside:
        return 0.0
    if len(reference) == 1:
        return reference[0] - inside[0][0]
    ends = [p[-1] for p in inside[1:]] + [reference[-1]]
    return sum(
        (end - p[-1]) * volume([q[:-1] for q in inside[: i + 1]], reference[:-1])
        for i, (p, end) in enumerate(zip(inside, ends, strict=True))
        if end > p[-1]
    )


def run(peer: str, problem: str, seed: int, trials: Sequence[int]) -> list[dict[str, Any]]:
    """One study; a row for each number of trials at which it is looked at."""
    function, spec, reference = PROBLEMS[problem]
    loop = peers.start(peer, spec, len(reference), seed)
    out, seen, spent = [], [], 0.0
    for number in range(max(trials)):
        began = time.process_time()
        params = loop.ask()
        spent += time.process_time() - began
        seen.append(function(params))
        began = time.process_time()
        loop.tell(seen[-1])
        spent += time.process_time() - began
        if number + 1 in trials:
            row = {"peer": peer, "problem": problem, "setting": number + 1, "seed": seed}
            out.append({**row, "volume": volume(seen, reference), "ms": 1e3 * spent / (number + 1)})
    return out


def table(found: list[dict[str, Any]], names: Sequence[str]) -> str:
    """Median hypervolume [least, most] over the seeds that a library has, and its mean rank over problems."""
    chosen = list(names) or list(dict.fromkeys(r["peer"] for r in found))
    cells = sorted({(r["setting"], r["problem"]) for r in found}, key=lambda c: (c[0], list(PROBLEMS).index(c[1])))
    lines = ["| problem | " + " | ".join(chosen) + " |", "|---" * (len(chosen) + 1) + "|"]
    ranks: dict[tuple[int, str], list[float]] = {}
    for trials, problem in cells:
        each = {p: _values(found, p, problem, trials) for p in chosen}
        medians = {p: statistics.median(v) for p, v in each.items() if v}
        for p, v in medians.items():
            place = 1 + sum(o > v for o in medians.values()) + (sum(o == v for o in medians.values()) - 1) / 2
            ranks.setdefault((trials, p), []).append(place)
        shown = [f"{statistics.median(v):.3f} [{min(v):.2f}, {max(v):.2f}]" if (v := each[p]) else "-" for p in chosen]
        lines.append(f"| {problem}, {trials} | " + " | ".join(shown) + " |")
    for trials in sorted({c[0] for c in cells}):
        places = [f"{statistics.mean(ranks[trials, p]):.2f}" if (trials, p) in ranks else "-" for p in chosen]
        lines.append(f"| mean rank of the medians, {trials} | " + " | ".join(places) + " |")
    for label, count in (("seeds", _seeds), ("CPU ms a trial", _price)):
        lines.append(f"| {label} | " + " | ".join(count(found, p) for p in chosen) + " |")
    return "\n".join(lines)


def _values(found: list[dict[str, Any]], peer: str, problem: str, trials: int) -> list[float]:
    return [r["volume"] for r in found if (r["peer"], r["problem"], r["setting"]) == (peer, problem, trials)]


def _seeds(found: list[dict[str, Any]], peer: str) -> str:
    return str(len({r["seed"] for r in found if r["peer"] == peer}))


def _price(found: list[dict[str, Any]], peer: str) -> str:
    return f"{statistics.mean(r['ms'] for r in found if r['peer'] == peer):.0f}"


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = reader.add_subparsers(dest="mode", required=True)
    runs = modes.add_parser("run")
    runs.add_argument("peers", nargs="+")
    runs.add_argument("--out", type=Path, required=True)
    runs.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    runs.add_argument("--trials", nargs="+", type=int, default=[50, 100])
    runs.add_argument("--seeds", type=int, default=5)
    tables = modes.add_parser("table")
    tables.add_argument("files", nargs="+", type=Path)
    tables.add_argument("--peers", nargs="+", default=[])
    wanted = reader.parse_args()
    if wanted.mode == "table":
        print(table(peers.rows(wanted.files), wanted.peers))
        return
    for seed in range(wanted.seeds):
        for problem in wanted.problems:
            for peer in wanted.peers:
                for row in run(peer, problem, seed, wanted.trials):
                    peers.add(wanted.out, row)


if __name__ == "__main__":
    main()
