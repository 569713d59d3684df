"""Permutations and subsets: tours, an assignment, and features of a real data set.

OMP_NUM_THREADS=1 python bench/search/combinatorial.py [--seeds 6] [--trials 100]

"12-city tour": random cities, one instance per seed; score: length / the best tour known (simulated annealing) - 1.
"8-job assignment": a random quadratic assignment problem, 8! orders, against the optimum by brute force.
"20 features": which of the first 20 features of scikit-learn's breast-cancer data (569 patients) a least-squares
classifier should get, at most 10 of them: 5-fold error rate + 0.002 for each feature.
"20 features, 5 of them": exactly 5, the error rate alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from itertools import permutations
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer

import luthier as lt
from luthier import search

Problem = tuple[lt.Space, Callable[[Mapping[str, Any]], float]]


def tour(seed: int, n: int = 12) -> Problem:
    """Cities in the unit square."""
    rng = np.random.default_rng(seed)
    cities = rng.random((n, 2))
    apart = np.linalg.norm(cities[:, None] - cities[None], axis=-1)

    def length(order: Any) -> float:
        at = np.asarray(order)
        return float(apart[at, np.roll(at, -1)].sum())

    best = np.inf
    for _ in range(4):
        at, heat = rng.permutation(n), 0.3
        now = length(at)
        while heat > 1e-3:
            i, j = np.sort(rng.integers(0, n + 1, 2))
            other = np.concatenate([at[:i], at[i:j][::-1], at[j:]])
            new = length(other)
            if new < now or rng.random() < np.exp((now - new) / heat):
                at, now = other, new
            best, heat = min(best, now), heat * 0.9985
    return lt.Space(order=lt.Permutation(range(n))), lambda p: length(p["order"]) / best - 1.0


def assignment(seed: int, n: int = 8) -> Problem:
    """Facilities with flows, places with distances."""
    rng = np.random.default_rng(seed)
    flow, apart = rng.integers(0, 9, (n, n)), rng.integers(1, 9, (n, n))

    def cost(at: Any) -> float:
        return float((flow * apart[np.ix_(at, at)]).sum())

    best = min(cost(list(p)) for p in permutations(range(n)))
    return lt.Space(at=lt.Permutation(range(n))), lambda p: cost(list(p["at"])) / best - 1.0


def features(seed: int, exactly: int | None = None) -> Problem:
    """Real data; the seed shuffles the folds."""
    data = load_breast_cancer()
    X = (data.data[:, :20] - data.data[:, :20].mean(0)) / data.data[:, :20].std(0)
    y = 2.0 * data.target - 1.0
    fold = np.random.default_rng(seed).permutation(len(y)) % 5

    def error(p: Mapping[str, Any]) -> float:
        chosen = np.column_stack([X[:, list(p["features"])], np.ones(len(y))])
        wrong = 0
        for k in range(5):
            train, test = fold != k, fold == k
            w = np.linalg.lstsq(chosen[train], y[train], rcond=None)[0]
            wrong += int((np.sign(chosen[test] @ w) != y[test]).sum())
        return wrong / len(y) + (0.002 * len(p["features"]) if exactly is None else 0.0)

    low, high = (1, 10) if exactly is None else (exactly, exactly)
    return lt.Space(features=lt.Subset(range(20), min=low, max=high)), error


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "12-city tour": tour,
    "8-job assignment": assignment,
    "20 features": features,
    "20 features, 5 of them": lambda seed: features(seed, 5),
}


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--seeds", type=int, default=6)
    reader.add_argument("--trials", type=int, default=100)
    reader.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    reader.add_argument("--algorithms", nargs="+", default=[n for n in search.names() if n not in ("grid", "auto")])
    wanted = reader.parse_args()
    at = [wanted.trials // 4, wanted.trials // 2, wanted.trials]
    print("| problem | algorithm | " + " | ".join(f"after {n}" for n in at) + " | CPU ms a trial |")
    print("|---" * (len(at) + 3) + "|")
    for name in wanted.problems:
        for algorithm in wanted.algorithms:
            found, spent = [], 0.0
            for seed in range(wanted.seeds):
                space, function = PROBLEMS[name](seed)
                loop, losses = lt.AskTell(space, algorithm=algorithm, minimize="loss", seed=seed), []
                for _ in range(wanted.trials):
                    start = time.process_time()
                    trial = loop.ask()
                    spent += time.process_time() - start
                    losses.append(function(trial.params))
                    loop.tell(trial, losses[-1])
                found.append([min(losses[:n]) for n in at])
            cells = " | ".join(f"{v:.3g}" for v in np.mean(found, axis=0))
            print(f"| {name} | {algorithm} | {cells} | {1e3 * spent / wanted.seeds / wanted.trials:.2g} |", flush=True)


if __name__ == "__main__":
    main()
