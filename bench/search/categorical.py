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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import luthier as lt

Params = Mapping[str, Any]
Step = Callable[[Params], float]


@dataclass(frozen=True)
class Problem:
    """A loss over plain dimensions: a tuple is a choice, (low, high, "log" or "int" or "float") a number.

    Attributes:
        loss: of the active parameters.
        space: dimensions by name.
        conditions: parameter -> (parent, the parent's values under which it is active).
        least: the least loss there is.
    """

    loss: Step
    space: Mapping[str, tuple[Any, ...]]
    least: float
    conditions: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)


def is_number(values: tuple[Any, ...]) -> bool:
    return values[-1] in ("log", "int", "float")


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


def luthier_run(problem: Problem, algorithm: str, trials: int, seed: int) -> list[float]:
    dimensions: dict[str, Any] = {}
    for name, values in problem.space.items():
        if not is_number(values):
            made: Any = lt.Choice(list(values))
        elif values[2] == "int":
            made = lt.Int(values[0], values[1])
        else:
            made = lt.Float(values[0], values[1], log=values[2] == "log")
        parent = problem.conditions.get(name)
        dimensions[name] = made.when(**{parent[0]: parent[1]}) if parent else made
    loop, found = lt.AskTell(lt.Space(dimensions), algorithm=algorithm, minimize="loss", seed=seed), []
    for _ in range(trials):
        trial = loop.ask()
        found.append(problem.loss(trial.params))
        loop.tell(trial, found[-1])
    return found


def optuna_run(problem: Problem, sampler: str, trials: int, seed: int) -> list[float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }[sampler]()

    def suggest(trial: Any, name: str, values: tuple[Any, ...]) -> Any:
        if not is_number(values):
            return trial.suggest_categorical(name, values)
        if values[2] == "int":
            return trial.suggest_int(name, values[0], values[1])
        return trial.suggest_float(name, values[0], values[1], log=values[2] == "log")

    def objective(trial: Any) -> float:
        params: dict[str, Any] = {}
        for name, values in problem.space.items():
            parent = problem.conditions.get(name)
            if parent is None or params[parent[0]] in parent[1]:
                params[name] = suggest(trial, name, values)
        return problem.loss(params)

    study = optuna.create_study(sampler=made)
    study.optimize(objective, n_trials=trials)
    return [t.value for t in study.trials]


def nevergrad_run(problem: Problem, trials: int, seed: int) -> list[float]:
    import nevergrad as ng

    def dimension(values: tuple[Any, ...]) -> Any:
        if not is_number(values):
            return ng.p.Choice(list(values))
        if values[2] == "log":
            return ng.p.Log(lower=values[0], upper=values[1])
        scalar = ng.p.Scalar(lower=values[0], upper=values[1])
        return scalar.set_integer_casting() if values[2] == "int" else scalar

    space = ng.p.Dict(**{name: dimension(values) for name, values in problem.space.items()})
    space.random_state.seed(seed)
    search, found = ng.optimizers.NGOpt(parametrization=space, budget=trials), []
    for _ in range(trials):
        asked = search.ask()
        found.append(problem.loss(asked.value))
        search.tell(asked, found[-1])
    return found


def run(search: str, problem: Problem, trials: int, seed: int) -> list[float]:
    if search.startswith("optuna-"):
        return optuna_run(problem, search.removeprefix("optuna-"), trials, seed)
    if search == "nevergrad":
        return nevergrad_run(problem, trials, seed)
    return luthier_run(problem, search, trials, seed)


def unit(problem: Problem) -> float:
    """Distance of random search to the least loss after 10 trials, the median of 200 searches."""
    return float(np.median([min(luthier_run(problem, "random", 10, seed)) for seed in range(200)])) - problem.least


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
