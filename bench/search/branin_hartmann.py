"""Bayesian against random search on Branin (2-D) and Hartmann-6: median of the best value over seeds.

python bench/search/branin_hartmann.py [--seeds 10] [--trials 40] [--algorithms random sobol bayes]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np

import luthier as lt

A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def branin(p: Mapping[str, float]) -> float:
    x, y = p["x"], p["y"]
    bowl = (y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6) ** 2
    return bowl + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def hartmann6(p: Mapping[str, float]) -> float:
    x = np.array([p[f"x{i}"] for i in range(6)])
    return -float(np.array([1, 1.2, 3, 3.2]) @ np.exp(-(A * (x - P) ** 2).sum(1)))


PROBLEMS: dict[str, tuple[Callable[[Mapping[str, float]], float], lt.Space, float]] = {
    "Branin": (branin, lt.Space(x=lt.Float(-5, 10), y=lt.Float(0, 15)), 0.397887),
    "Hartmann-6": (hartmann6, lt.Space({f"x{i}": lt.Float(0, 1) for i in range(6)}), -3.32237),
}


def best(name: str, algorithm: str, trials: int, seed: int) -> float:
    """Distance to the optimum after so many trials."""
    function, space, optimum = PROBLEMS[name]
    loop = lt.AskTell(space, algorithm=algorithm, minimize="loss", seed=seed)
    for _ in range(trials):
        trial = loop.ask()
        loop.tell(trial, function(trial.params))
    return loop.best.metrics["loss"] - optimum


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--seeds", type=int, default=10)
    reader.add_argument("--trials", type=int, default=40)
    reader.add_argument("--algorithms", nargs="+", default=["random", "sobol", "bayes"])
    wanted = reader.parse_args()
    print(f"distance to the optimum after {wanted.trials} trials: median (range) of {wanted.seeds} seeds\n")
    print("| problem | algorithm | median | least | most | CPU ms a trial |\n|---|---|---|---|---|---|")
    for problem in PROBLEMS:
        for algorithm in wanted.algorithms:
            start = time.process_time()
            values = [best(problem, algorithm, wanted.trials, seed) for seed in range(wanted.seeds)]
            each = (time.process_time() - start) / wanted.seeds / wanted.trials * 1e3
            middle = statistics.median(values)
            print(f"| {problem} | {algorithm} | {middle:.4g} | {min(values):.4g} | {max(values):.4g} | {each:.1f} |")


if __name__ == "__main__":
    main()
