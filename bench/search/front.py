"""Several objectives: hypervolume reached on ZDT1-3 with a whole number and a category mixed in, and DTLZ2.

OMP_NUM_THREADS=1 python bench/search/front.py [--trials 50] [--seeds 5] [--algorithms random nsga2 tpe bayes]
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import luthier as lt
from luthier import pareto

Losses = Callable[[Mapping[str, Any]], dict[str, float]]


def zdt(kind: int) -> Losses:
    """Zitzler, Deb and Thiele, 2000; five numbers, one whole number and one category add to g."""

    def losses(p: Mapping[str, Any]) -> dict[str, float]:
        rest = [p[f"x{i}"] for i in range(1, 5)] + [abs(p["k"] - 3) / 9, {"a": 0.6, "b": 0.0, "c": 0.3}[p["c"]]]
        f, g = p["x0"], 1 + 9 * sum(rest) / len(rest)
        shape = {1: 1 - math.sqrt(f / g), 2: 1 - (f / g) ** 2}
        third = 1 - math.sqrt(f / g) - f / g * math.sin(10 * math.pi * f)
        return {"f": f, "g": g * shape.get(kind, third)}

    return losses


def dtlz2(p: Mapping[str, Any]) -> dict[str, float]:
    """Deb, Thiele, Laumanns and Zitzler, 2002; three objectives, five numbers."""
    a, b = p["x0"] * math.pi / 2, p["x1"] * math.pi / 2
    r = 1 + sum((p[f"x{i}"] - 0.5) ** 2 for i in range(2, 5))
    return {"f": r * math.cos(a) * math.cos(b), "g": r * math.cos(a) * math.sin(b), "h": r * math.sin(a)}


NUMBERS = {f"x{i}": lt.Float(0, 1) for i in range(5)}
MIXED = lt.Space({**NUMBERS, "k": lt.Int(0, 9), "c": lt.Choice(["a", "b", "c"])})
PROBLEMS: dict[str, tuple[Losses, lt.Space, tuple[str, ...], float]] = {
    "ZDT1": (zdt(1), MIXED, ("f", "g"), 7.0),
    "ZDT2": (zdt(2), MIXED, ("f", "g"), 7.0),
    "ZDT3": (zdt(3), MIXED, ("f", "g"), 7.0),
    "DTLZ2": (dtlz2, lt.Space(NUMBERS), ("f", "g", "h"), 2.0),
}


def volume(problem: str, algorithm: str, trials: int, seed: int) -> float:
    """Hypervolume up to (1.1, worst) or (2, 2, 2)."""
    function, space, names, worst = PROBLEMS[problem]
    wanted = dict.fromkeys(names, "min")
    loop = lt.AskTell(space, algorithm=algorithm, objectives=wanted, seed=seed)
    for _ in range(trials):
        trial = loop.ask()
        loop.tell(trial, function(trial.params))
    reference = np.full(len(names), worst)
    if len(names) == 2:
        reference[0] = 1.1
    return pareto.hypervolume(np.array([[t.metrics[n] for n in names] for t in loop.front]), reference)


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--trials", type=int, default=50)
    reader.add_argument("--seeds", type=int, default=5)
    reader.add_argument("--algorithms", nargs="+", default=["random", "nsga2", "tpe", "bayes"])
    wanted = reader.parse_args()
    print(f"hypervolume after {wanted.trials} trials, median of {wanted.seeds} seeds\n")
    print("| problem | " + " | ".join(wanted.algorithms) + " |\n" + "|---" * (len(wanted.algorithms) + 1) + "|")
    for problem in PROBLEMS:
        cells = [
            statistics.median(volume(problem, algorithm, wanted.trials, seed) for seed in range(wanted.seeds))
            for algorithm in wanted.algorithms
        ]
        print(f"| {problem} | " + " | ".join(f"{v:.3f}" for v in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
