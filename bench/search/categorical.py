"""Spaces that are mostly choices, conditional ones among them: the least loss found, also by other libraries.

OMP_NUM_THREADS=1 python bench/search/categorical.py [--seeds 10] [--trials 25 50] [--searches bayes tpe random]

Searches are Luthier's algorithms, or "optuna-tpe", "optuna-gp", "optuna-random", "nevergrad" where these are installed
(Luthier needs only numpy and scipy beside them). Losses are shares: 0 is the best there is, found by enumeration or
known; 1 what the median of random search has after 10 trials.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import time

import numpy as np
from plain import Params, Problem, run, unit

RNG = np.random.default_rng(2024)
LAYERS = RNG.normal(size=(7, 4)) * 0.4
PAIRS = RNG.normal(size=(6, 4, 4)) * 0.5
WEIGHTS = RNG.normal(size=(3, 5, 5, 5))
OPERATIONS = ("conv", "pool", "skip", "dense")


def cell(p: Params) -> float:
    """Seven layers of four operations: each has a worth of its own and one with its neighbour."""
    z = [OPERATIONS.index(p[f"layer{i}"]) for i in range(7)]
    own = sum(LAYERS[i, z[i]] for i in range(7))
    return float(own + sum(PAIRS[i, z[i], z[i + 1]] for i in range(6)))


def least_cell() -> float:
    return min(cell({f"layer{i}": z[i] for i in range(7)}) for z in itertools.product(OPERATIONS, repeat=7))


LEVELS = tuple("abcde")


def sparse(p: Params) -> float:
    """Ten choices of five, of which three matter, together; and a number whose best place depends on one of them."""
    i, j, k = (LEVELS.index(p[n]) for n in ("c1", "c4", "c7"))
    return float(WEIGHTS[0, i, j, k] + WEIGHTS[1, i, j, 0] + 2.0 * (p["x"] - 0.2 - 0.15 * j) ** 2)


def least_sparse() -> float:
    return float(min(WEIGHTS[0, i, j, k] + WEIGHTS[1, i, j, 0] for i, j, k in itertools.product(range(5), repeat=3)))


MODELS = {"linear": 0.32, "forest": 0.24, "boosting": 0.20, "network": 0.21, "neighbours": 0.30}
SCALED = ("linear", "network", "neighbours")


def pipeline(p: Params) -> float:
    """Preparation, selection and model, and the model's own settings, active only with it."""
    m = p["model"]
    loss = MODELS[m] + {"none": 0.06 if m in SCALED else 0.0, "standard": 0.0, "rank": 0.01}[p["scale"]]
    loss += {"one-hot": 0.0, "ordinal": 0.04 if m in SCALED else -0.01, "target": 0.01}[p["encode"]]
    loss += {"all": 0.02, "variance": 0.015, "mutual": 0.0}[p["select"]] + {"mean": 0.005, "model": 0.0}[p["impute"]]
    if m in ("linear", "network"):
        loss += 0.03 * (math.log10(p["decay"]) + (1.0 if m == "linear" else 3.5)) ** 2 / 2
    if m in ("forest", "boosting"):
        loss += 0.01 * (p["depth"] - (14 if m == "forest" else 5)) ** 2 / 10
    if m in ("boosting", "network"):
        loss += 0.04 * (math.log10(p["rate"]) + (1.1 if m == "boosting" else 2.8)) ** 2
    if m == "neighbours":
        loss += 0.02 * abs(math.log2(p["neighbours"]) - 3)
    return loss


def switches(p: Params) -> float:
    """Twelve switches with pair effects, and two numbers that matter under some of them."""
    z = np.array([p[f"s{i}"] == "on" for i in range(12)], dtype=float)
    return float(SWITCHES @ z + z @ COUPLED @ z + (1 + z[0]) * (p["a"] - 0.7) ** 2 + (1 + z[3]) * abs(p["b"] - 0.3))


SWITCHES, COUPLED = RNG.normal(size=12) * 0.3, np.triu(RNG.normal(size=(12, 12)), 1) * 0.25


def least_switches() -> float:
    z = np.array(list(itertools.product((0.0, 1.0), repeat=12)))
    return float((z @ SWITCHES + np.einsum("ni,ij,nj->n", z, COUPLED, z)).min())


@functools.cache
def problems() -> dict[str, Problem]:
    """All of them, by name."""
    preparation = {
        "scale": ("none", "standard", "rank"),
        "encode": ("one-hot", "ordinal", "target"),
        "select": ("all", "variance", "mutual"),
        "impute": ("mean", "model"),
    }
    settings = {
        "decay": (1e-6, 1e2, "log"),
        "depth": (1, 20, "int"),
        "rate": (1e-5, 1.0, "log"),
        "neighbours": (1, 100, "int"),
    }
    with_model = {
        "decay": ("model", ("linear", "network")),
        "depth": ("model", ("forest", "boosting")),
        "rate": ("model", ("boosting", "network")),
        "neighbours": ("model", ("neighbours",)),
    }
    return {
        "cell": Problem(cell, {f"layer{i}": OPERATIONS for i in range(7)}, least_cell()),
        "sparse": Problem(sparse, {**{f"c{i}": LEVELS for i in range(10)}, "x": (0.0, 1.0, "float")}, least_sparse()),
        "pipeline": Problem(pipeline, {"model": tuple(MODELS), **preparation, **settings}, 0.19, with_model),
        "switches": Problem(
            switches,
            {**{f"s{i}": ("off", "on") for i in range(12)}, "a": (0.0, 1.0, "float"), "b": (0.0, 1.0, "float")},
            least_switches(),
        ),
    }


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--seeds", type=int, default=10)
    reader.add_argument("--trials", type=int, nargs="+", default=[25, 50])
    reader.add_argument("--searches", nargs="+", default=["random", "tpe", "bayes"])
    reader.add_argument("--problems", nargs="+", default=list(problems()))
    wanted = reader.parse_args()
    chosen = {name: problems()[name] for name in wanted.problems}
    units = {name: unit(problem) for name, problem in chosen.items()}
    print("| search | " + " | ".join(f"{n} @{t}" for n in chosen for t in wanted.trials) + " | mean | CPU ms a trial |")
    print("|---" * (len(chosen) * len(wanted.trials) + 3) + "|")
    for search in wanted.searches:
        cells, last, start = [], [], time.process_time()
        for name, problem in chosen.items():
            runs = np.array([run(search, problem, max(wanted.trials), seed) for seed in range(wanted.seeds)])
            best = np.minimum.accumulate(runs, axis=1)
            shares = [(best[:, t - 1] - problem.least) / units[name] for t in wanted.trials]
            cells += [f"{s.mean():.3f} ± {s.std(ddof=1) / math.sqrt(len(s)):.3f}" for s in shares]
            last.append(shares[-1].mean())
        price = (time.process_time() - start) * 1e3 / (len(chosen) * wanted.seeds * max(wanted.trials))
        print(f"| {search} | " + " | ".join(cells) + f" | {np.mean(last):.3f} | {price:.2g} |", flush=True)


if __name__ == "__main__":
    main()
