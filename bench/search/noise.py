"""Noise: the noise-free value of what each library calls its best, when every result is measured with an error.

Each library runs in an environment of its own and adds to the same file; the table is made from the file:

OMP_NUM_THREADS=1 python bench/search/noise.py run luthier_bayes luthier_tpe --out noise.jsonl
OMP_NUM_THREADS=1 /path/to/peers/python bench/search/noise.py run optuna_gp optuna_tpe skopt_gp --out noise.jsonl
python bench/search/noise.py table noise.jsonl
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import peers

Function = Callable[[Mapping[str, Any]], float]


def branin(p: Mapping[str, Any]) -> float:
    """Three equal optima, 0.398."""
    x, y = p["x"], p["y"]
    valley = y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6
    return valley**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


_A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann(p: Mapping[str, Any]) -> float:
    """Six numbers, least value -3.322."""
    x = np.array([p[f"x{i}"] for i in range(6)])
    return -float(np.array([1.0, 1.2, 3.0, 3.2]) @ np.exp(-(_A * (x - _P) ** 2).sum(1)))


def bowl(p: Mapping[str, Any]) -> float:
    """A shifted, uneven bowl of four numbers, least value 0."""
    return sum((i + 1) * (p[f"x{i}"] - 0.2 - 0.15 * i) ** 2 for i in range(4))


def network(p: Mapping[str, Any]) -> float:
    """Learning rate by optimiser, width, depth and weight decay, as tuning curves look; least value 0."""
    rate = {"sgd": -1.3, "adam": -2.9, "rms": -3.2}[p["opt"]] - 0.25 * (p["width"] - 6)
    value = min(abs(math.log10(p["lr"]) - rate) ** 1.5, 4.0) + {"sgd": 0.2, "adam": 0.0, "rms": 0.35}[p["opt"]]
    return value + 0.1 * (p["depth"] - 4) ** 2 + 0.08 * (p["width"] - 8) ** 2 + 0.1 * (math.log10(p["decay"]) + 4) ** 2


PROBLEMS: dict[str, tuple[Function, peers.Spec, float]] = {
    "Branin": (branin, {"x": ("float", -5.0, 10.0), "y": ("float", 0.0, 15.0)}, 0.397887),
    "Hartmann-6": (hartmann, {f"x{i}": ("float", 0.0, 1.0) for i in range(6)}, -3.32237),
    "Bowl": (bowl, {f"x{i}": ("float", 0.0, 1.0) for i in range(4)}, 0.0),
    "Network": (
        network,
        {
            "lr": ("log", 1e-5, 1.0),
            "decay": ("log", 1e-6, 1e-1),
            "width": ("int", 4, 10),
            "depth": ("int", 1, 8),
            "opt": ("choice", ["sgd", "adam", "rms"]),
        },
        0.0,
    ),
}


def span(problem: str) -> float:
    """Largest minus least value over 4096 uniform draws."""
    function, spec, _ = PROBLEMS[problem]
    generator = np.random.default_rng(0)
    values = [function({n: _draw(generator, *each) for n, each in spec.items()}) for _ in range(4096)]
    return max(values) - min(values)


def _draw(generator: np.random.Generator, kind: str, *given: Any) -> Any:
    if kind == "choice":
        return given[0][generator.integers(len(given[0]))]
    if kind == "int":
        return int(generator.integers(given[0], given[1] + 1))
    if kind == "log":
        return float(math.exp(generator.uniform(math.log(given[0]), math.log(given[1]))))
    return float(generator.uniform(*given))


def run(peer: str, problem: str, noise: float, seed: int, trials: int) -> dict[str, Any]:
    """One study: regret of what is named best, and of the best point tried, both in shares of the span."""
    function, spec, least = PROBLEMS[problem]
    scale = span(problem)
    loop = peers.start(peer, spec, 1, seed)
    tried, began = math.inf, time.process_time()
    for number in range(trials):
        params = loop.ask()
        value = function(params)
        tried = min(tried, value)
        loop.tell([value + noise * scale * float(np.random.default_rng([seed, number]).normal())])
    named = function(loop.best())
    return {
        "peer": peer,
        "problem": problem,
        "setting": noise,
        "seed": seed,
        "regret": (named - least) / scale,
        "tried": (tried - least) / scale,
        "ms": 1e3 * (time.process_time() - began) / trials,
    }


def table(found: list[dict[str, Any]], chosen: list[str]) -> str:
    """Mean regret in per cent of the span by problem and noise, and the mean rank over all."""
    names = chosen or list(dict.fromkeys(r["peer"] for r in found))
    cells = sorted({(r["setting"], r["problem"]) for r in found})
    by = {(r["peer"], r["problem"], r["setting"], r["seed"]): r for r in found}
    every = sorted({r["seed"] for r in found})
    seeds = [s for s in every if all((p, problem, noise, s) in by for p in names for noise, problem in cells)]
    lines = ["| named best, regret in % of the span | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for noise, problem in cells:
        values = {p: [100 * by[p, problem, noise, s]["regret"] for s in seeds] for p in names}
        shown = [f"{statistics.mean(v):.2f} ± {statistics.stdev(v) / len(v) ** 0.5:.2f}" for v in values.values()]
        lines.append(f"| {problem}, noise {100 * noise:.0f} % | " + " | ".join(shown) + " |")
    ranks: dict[str, list[float]] = {p: [] for p in names}
    for noise, problem in cells:
        for seed in seeds:
            scores = [by[p, problem, noise, seed]["regret"] for p in names]
            for p, score in zip(names, scores, strict=True):
                ranks[p].append(1 + sum(s < score for s in scores) + (sum(s == score for s in scores) - 1) / 2)
    for noise in sorted({c[0] for c in cells}):
        means = [_regret(by, p, noise, {c[1] for c in cells}, seeds) for p in names]
        lines.append(f"| mean, noise {100 * noise:.0f} % | " + " | ".join(f"{m:.2f}" for m in means) + " |")
    lines.append("| mean rank | " + " | ".join(f"{statistics.mean(ranks[p]):.2f}" for p in names) + " |")
    lines.append("| CPU ms a trial | " + " | ".join(f"{_mean(found, p, 'ms'):.0f}" for p in names) + " |")
    return f"{len(seeds)} seeds\n\n" + "\n".join(lines)


def _regret(by: Mapping[Any, dict[str, Any]], peer: str, noise: float, problems: set[str], seeds: list[int]) -> float:
    return statistics.mean(100 * by[peer, problem, noise, s]["regret"] for problem in sorted(problems) for s in seeds)


def _mean(found: list[dict[str, Any]], peer: str, column: str) -> float:
    return statistics.mean(r[column] for r in found if r["peer"] == peer)


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = reader.add_subparsers(dest="mode", required=True)
    runs = modes.add_parser("run")
    runs.add_argument("peers", nargs="+")
    runs.add_argument("--out", type=Path, required=True)
    runs.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    runs.add_argument("--noise", nargs="+", type=float, default=[0.1, 0.3])
    runs.add_argument("--trials", type=int, default=50)
    runs.add_argument("--seeds", type=int, default=10)
    tables = modes.add_parser("table")
    tables.add_argument("files", nargs="+", type=Path)
    tables.add_argument("--peers", nargs="+", default=[])
    wanted = reader.parse_args()
    if wanted.mode == "table":
        print(table(peers.rows(wanted.files), wanted.peers))
        return
    for seed in range(wanted.seeds):
        for problem in wanted.problems:
            for noise in wanted.noise:
                for peer in wanted.peers:
                    peers.add(wanted.out, run(peer, problem, noise, seed, wanted.trials))


if __name__ == "__main__":
    main()
