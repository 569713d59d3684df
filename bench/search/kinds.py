"""Problems of six kinds, a fresh one for every seed: how far searches get in 25 and 50 trials, also other libraries'.

OMP_NUM_THREADS=1 python bench/search/kinds.py run random tpe bayes [optuna-gp nevergrad ax] --out kinds.jsonl
python bench/search/kinds.py table kinds.jsonl

The seed draws the problem as well: where its optimum lies, its rotation, its coefficients, its share of the data. So
nothing can be tuned to it. Searches are those of plain.py; runs that are in the file already are not made again. A loss
of 0 is the best there is (of learners: the least of all runs), 1 the median of random search after 10 trials.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers import add, rows
from plain import Params, Problem, run
from scipy.stats import rankdata

Array = np.ndarray[Any, np.dtype[np.float64]]
Maker = Callable[[np.random.Generator], Problem]
TRIALS, DRAWS = 50, 60


# Functions of the distance to the optimum, shape (d,), in units of a hundredth of the box; 0 at the optimum.


def ackley(z: Array) -> float:
    z = 0.4 * z
    bowl, waves = math.exp(-0.2 * math.sqrt((z * z).mean())), math.exp(np.cos(2 * math.pi * z).mean() - 1)
    return 20 * (1 - bowl) + math.e * (1 - waves)


def rosenbrock(z: Array) -> float:
    z = 0.04 * z + 1
    return float((100 * (z[1:] - z[:-1] ** 2) ** 2 + (1 - z[:-1]) ** 2).sum())


def levy(z: Array) -> float:
    w = 1 + 0.05 * z
    inner = (w[:-1] - 1) ** 2 * (1 + 10 * np.sin(math.pi * w[:-1] + 1) ** 2)
    last = (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2)
    return float(math.sin(math.pi * w[0]) ** 2 + inner.sum() + last)


def rastrigin(z: Array) -> float:
    z = 0.06 * z
    return float((z * z + 3 - 3 * np.cos(2 * math.pi * z)).sum())


def ellipsoid(z: Array, rotation: Array) -> float:
    return float((((rotation @ z) / 10) ** 2 * 10.0 ** np.linspace(0, 2, len(z))).sum())


def turned(rng: np.random.Generator, d: int) -> Callable[[Array], float]:
    """An ellipsoid in a random rotation."""
    rotation = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return lambda z: ellipsoid(z, rotation)


def numbers(d: int, shape: Callable[[Array], float] | None, far: bool = False) -> Maker:
    """Floats from 0 to 100; the optimum within a fifth of the box around its middle, or 0.25 to 0.42 away in each."""

    def make(rng: np.random.Generator) -> Problem:
        away = rng.uniform(25, 42, d) * rng.choice([-1, 1], d) if far else rng.uniform(-20, 20, d)
        f = shape or turned(rng, d)
        space = {f"x{i}": (0.0, 100.0, "float") for i in range(d)}
        return Problem(lambda p: f(np.array([p[f"x{i}"] for i in range(d)]) - 50 - away), space, 0.0)

    return make


def whole(d: int, shape: Callable[[Array], float] | None) -> Maker:
    """Four fifths whole numbers of 2, 4, 8 and 16 values, a fifth floats; the optimum at a value of each."""

    def make(rng: np.random.Generator) -> Problem:
        f, space, best, step = shape or turned(rng, d), dict[str, tuple[Any, ...]](), [], []
        for i in range(d):
            levels = (2, 4, 8, 16, 0)[5 * i // d]
            space[f"x{i}"] = (0, levels - 1, "int") if levels else (0.0, 100.0, "float")
            best.append(rng.integers(levels) if levels else rng.uniform(20, 80))
            step.append(100 / levels if levels else 1.0)
        at, width = np.array(best, dtype=float), np.array(step)
        return Problem(lambda p: f(width * (np.array([p[f"x{i}"] for i in range(d)]) - at)), space, 0.0)

    return make


def log_square(value: float, centre: float, width: float) -> float:
    return ((math.log10(value) - centre) / width) ** 2


def network(rng: np.random.Generator) -> Problem:
    """A curve of training: the best rate goes with the optimiser, the width and the batch."""
    base = {name: rng.uniform(-3.8, -1.2) for name in ("sgd", "adam", "lion", "rms")}
    worse = dict(zip(base, rng.permutation([0.0, 0.05, 0.1, 0.3]), strict=True))
    by_width, by_batch, depth, drop = rng.uniform(-0.3, 0.3), rng.uniform(0, 0.3), rng.integers(3, 10), rng.random() / 3

    def loss(p: Params) -> float:
        rate = base[p["optimiser"]] + by_width * math.log2(p["width"] / 90) + by_batch * math.log2(p["batch"] / 64)
        return (
            0.3 * log_square(p["rate"], rate, 0.8)
            + worse[p["optimiser"]]
            + 0.05 * (p["depth"] - depth) ** 2
            + 0.6 * (p["dropout"] - drop) ** 2
            + 0.1 * math.log2(p["width"] / 512) ** 2 / 4
            + 0.05 * abs(math.log2(p["batch"] / 128))
        )

    space = {
        "rate": (1e-5, 1.0, "log"),
        "optimiser": tuple(base),
        "width": (8, 512, "log int"),
        "depth": (1, 12, "int"),
        "dropout": (0.0, 0.7, "float"),
        "batch": (8, 512, "log int"),
    }
    return Problem(loss, space, 0.0)


def trees(rng: np.random.Generator) -> Problem:
    """Boosting: few rounds want a large step; a kind of trees, a leaf size and a share of rows besides."""
    slope, leaves, rows_, decay = rng.uniform(0.4, 0.9), rng.uniform(8, 100), rng.uniform(0.4, 1), rng.uniform(-3, 1)
    worse = dict(zip(("plain", "dart", "goss"), rng.permutation([0.0, 0.05, 0.12]), strict=True))

    def loss(p: Params) -> float:
        off = math.log10(p["step"]) + slope * math.log2(p["rounds"] / 100) / 3 + 1.2
        return (
            0.3 * off * off
            + 0.05 * math.log2(p["leaves"] / leaves) ** 2
            + 0.05 * log_square(p["decay"], decay, 1.5)
            + 0.4 * abs(p["rows"] - rows_)
            + worse[p["kind"]]
        )

    space = {
        "step": (1e-3, 1.0, "log"),
        "rounds": (10, 2000, "log int"),
        "leaves": (2, 256, "log int"),
        "decay": (1e-5, 100.0, "log"),
        "rows": (0.3, 1.0, "float"),
        "kind": tuple(worse),
    }
    return Problem(loss, space, 0.0)


def optimisers(rng: np.random.Generator) -> Problem:
    """Each optimiser has a rate of its own, and settings that are there with it only."""
    names = ("sgd", "adam", "lbfgs")
    worse = dict(zip(names, rng.permutation([0.0, 0.04, 0.15]), strict=True))
    rate = {name: rng.uniform(-3.5, -0.5) for name in names}
    decay, momentum, beta, memory = (
        rng.uniform(-5, -1),
        rng.uniform(0.3, 0.95),
        rng.uniform(-3, -1),
        rng.integers(3, 40),
    )

    def loss(p: Params) -> float:
        name = p["optimiser"]
        found = worse[name] + 0.2 * log_square(p["rate"], rate[name], 0.8) + 0.05 * log_square(p["decay"], decay, 1.5)
        if name == "sgd":
            return found + 0.5 * (p["momentum"] - momentum) ** 2 + (0.03 if p["nesterov"] == "no" else 0.0)
        if name == "adam":
            return found + 0.1 * log_square(p["forget"], beta, 0.7)
        return found + 0.05 * math.log2(p["memory"] / memory) ** 2

    space = {
        "optimiser": names,
        "rate": (1e-5, 1.0, "log"),
        "decay": (1e-7, 1.0, "log"),
        "momentum": (0.0, 0.99, "float"),
        "nesterov": ("yes", "no"),
        "forget": (1e-4, 0.5, "log"),
        "memory": (2, 100, "log int"),
    }
    there = {
        "momentum": ("optimiser", ("sgd",)),
        "nesterov": ("optimiser", ("sgd",)),
        "forget": ("optimiser", ("adam",)),
        "memory": ("optimiser", ("lbfgs",)),
    }
    return Problem(loss, space, 0.0, there)


def kernels(rng: np.random.Generator) -> Problem:
    """Four kernels, with a width where they have one and a degree where they have one."""
    names = ("rbf", "polynomial", "linear", "sigmoid")
    worse = dict(zip(names, rng.permutation([0.0, 0.03, 0.08, 0.15]), strict=True))
    penalty, width = ({name: rng.uniform(*span) for name in names} for span in ((-2, 2), (-4, -0.5)))
    degree = rng.integers(2, 6)

    def loss(p: Params) -> float:
        name = p["kernel"]
        found = worse[name] + 0.08 * log_square(p["penalty"], penalty[name], 1.2)
        if name != "linear":
            found += 0.1 * log_square(p["width"], width[name], 0.9)
        return found + 0.03 * (p["degree"] - degree) ** 2 if name == "polynomial" else found

    space = {
        "kernel": names,
        "penalty": (1e-4, 1e4, "log"),
        "width": (1e-6, 10.0, "log"),
        "degree": (1, 8, "int"),
    }
    there = {
        "width": ("kernel", ("rbf", "polynomial", "sigmoid")),
        "degree": ("kernel", ("polynomial",)),
    }
    return Problem(loss, space, 0.0, there)


def choices(rng: np.random.Generator) -> Problem:
    """Six choices of five options, with effects of their own and with their neighbours'."""
    alone, pairs, letters = 0.5 * rng.normal(size=(6, 5)), 0.5 * rng.normal(size=(5, 5, 5)), "abcde"
    best = np.zeros(5)  # of everything so far, by the option of the last
    for i in range(6):
        best = alone[i] + ((best[:, None] + pairs[i - 1]).min(0) if i else 0.0)

    def loss(p: Params) -> float:
        z = [letters.index(p[f"c{i}"]) for i in range(6)]
        return float(sum(alone[i, z[i]] for i in range(6)) + sum(pairs[i, z[i], z[i + 1]] for i in range(5)))

    return Problem(loss, {f"c{i}": tuple(letters) for i in range(6)}, float(best.min()))


def learner(data: str, space: dict[str, tuple[Any, ...]], build: Callable[[Params], Any]) -> Maker:
    """scikit-learn's 3-fold cross-validation on 250 rows that the seed picks: log loss, or squared error / variance."""

    def make(rng: np.random.Generator) -> Problem:
        from sklearn import datasets
        from sklearn.metrics import log_loss
        from sklearn.model_selection import KFold, StratifiedKFold

        x, y = getattr(datasets, f"load_{data}")(return_X_y=True)
        kept = rng.permutation(len(x))[:250]
        x, y = (x[kept] - x[kept].mean(0)) / (x[kept].std(0) + 1e-9), y[kept]
        plain = data == "diabetes"
        folds = list((KFold if plain else StratifiedKFold)(3, shuffle=True, random_state=1).split(x, y))

        def loss(p: Params) -> float:
            found = []
            for train, test in folds:
                with warnings.catch_warnings(action="ignore"):
                    model = build(p).fit(x[train], y[train])
                if plain:
                    found.append(float(((model.predict(x[test]) - y[test]) ** 2).mean() / y.var()))
                else:
                    shares = np.clip(model.predict_proba(x[test]), 1e-4, 1)
                    found.append(float(log_loss(y[test], shares / shares.sum(1, keepdims=True), labels=model.classes_)))
            mean = float(np.mean(found))
            return min(mean, 5.0) if math.isfinite(mean) else 5.0

        return Problem(loss, space, math.nan)

    return make


def forest(p: Params) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(
        p["trees"], max_depth=p["depth"], max_features=p["features"], min_samples_leaf=p["leaf"], random_state=0
    )


def machine(p: Params) -> Any:
    from sklearn.svm import SVR

    scale = {"C": p["penalty"], "epsilon": p["slack"], "gamma": p["width"]}
    return SVR(kernel=p["kernel"], degree=p["degree"], max_iter=3000, **scale)


def perceptron(p: Params) -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(
        (p["hidden"],),
        activation=p["activation"],
        learning_rate_init=p["rate"],
        alpha=p["decay"],
        batch_size=p["batch"],
        max_iter=10,
        random_state=0,
    )


FOREST = {
    "trees": (2, 20, "log int"),
    "depth": (1, 16, "int"),
    "features": (0.05, 1.0, "float"),
    "leaf": (1, 30, "log int"),
}
MACHINE = {
    "penalty": (1e-1, 1e4, "log"),
    "slack": (1e-1, 100.0, "log"),
    "width": (1e-6, 10.0, "log"),
    "kernel": ("rbf", "poly", "sigmoid"),
    "degree": (1, 4, "int"),
}
PERCEPTRON = {
    "hidden": (2, 64, "log int"),
    "activation": ("relu", "tanh", "logistic", "identity"),
    "rate": (1e-5, 0.3, "log"),
    "decay": (1e-6, 10.0, "log"),
    "batch": (8, 100, "log int"),
}
PROBLEMS: dict[str, dict[str, Maker]] = {
    "smooth": {"ackley": numbers(5, ackley), "rosenbrock": numbers(4, rosenbrock), "ellipsoid": numbers(6, None)},
    "far": {"levy": numbers(5, levy, far=True), "rastrigin": numbers(4, rastrigin, far=True)},
    "whole": {"whole ellipsoid": whole(10, None), "whole ackley": whole(5, ackley), "whole levy": whole(10, levy)},
    "mixed": {"network": network, "trees": trees},
    "choices": {"choices": choices, "optimisers": optimisers, "kernels": kernels},
    "learners": {
        "forest": learner("digits", FOREST, forest),
        "machine": learner("diabetes", MACHINE, machine),
        "perceptron": learner("wine", PERCEPTRON, perceptron),
    },
}


def run_all(searches: list[str], kinds: list[str], seeds: int, out: Path) -> None:
    known = {(r["peer"], r["problem"], r["seed"]) for r in rows([out])}
    for seed in range(seeds):
        for kind, makers in ((kind, PROBLEMS[kind]) for kind in kinds):
            for name, make in makers.items():
                for search in searches:
                    if (search, name, seed) not in known:
                        problem = make(np.random.default_rng([zlib.crc32(name.encode()), seed]))
                        start = time.process_time()
                        losses = run(search, problem, DRAWS if search == "random" else TRIALS, seed)
                        row = {"peer": search, "problem": name, "setting": kind, "seed": seed, "least": problem.least}
                        add(out, {**row, "losses": losses, "seconds": time.process_time() - start})


def scores(found: list[dict[str, Any]]) -> dict[tuple[str, str, int], Array]:
    """(search, problem, seed) -> shares of the best so far after each trial, of problems that all searches ran."""
    searches, out = {r["peer"] for r in found}, {}
    for name, seed in sorted({(r["problem"], r["seed"]) for r in found}):
        runs = {r["peer"]: r for r in found if (r["problem"], r["seed"]) == (name, seed)}
        if set(runs) != searches:
            continue
        least = runs["random"]["least"]
        if math.isnan(least):
            least = min(min(r["losses"]) for r in runs.values())
        unit = float(np.median(np.reshape(runs["random"]["losses"], (-1, 10)).min(1))) - least
        for search, each in runs.items():
            shares = (np.minimum.accumulate(each["losses"])[:TRIALS] - least) / max(unit, 1e-12)
            out[search, name, seed] = np.clip(shares, 0.0, 2.0)
    return out


def table(paths: list[Path]) -> None:
    found = rows(paths)
    got = scores(found)
    searches = sorted(
        {search for search, _, _ in got}, key=lambda s: np.mean([v[-1] for k, v in got.items() if k[0] == s])
    )
    cases = sorted({k[1:] for k in got})
    print(f"{len(cases)} problems drawn\n")
    print("| | mean rank @25 | @50 | regret @25 | @50 | " + " | ".join(f"{k} @50" for k in PROBLEMS) + " |")
    print("|---" * (5 + len(PROBLEMS)) + "|")
    ranks = {t: np.mean([rankdata([got[s, *c][t - 1] for s in searches]) for c in cases], 0) for t in (25, TRIALS)}
    for i, search in enumerate(searches):
        cells = [f"{ranks[t][i]:.2f}" for t in (25, TRIALS)]
        cells += [spread([got[search, *c][t - 1] for c in cases]) for t in (25, TRIALS)]
        cells += [spread([got[search, *c][-1] for c in cases if c[0] in names]) for names in PROBLEMS.values()]
        print(f"| {search} | " + " | ".join(cells) + " |")


def spread(values: list[float]) -> str:
    if len(values) < 2:
        return "-"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / math.sqrt(len(values)):.3f}"


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = reader.add_subparsers(dest="verb", required=True)
    runner, shower = verbs.add_parser("run"), verbs.add_parser("table")
    runner.add_argument("searches", nargs="+")
    runner.add_argument("--kinds", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    runner.add_argument("--seeds", type=int, default=5)
    runner.add_argument("--out", type=Path, default=Path("kinds.jsonl"))
    shower.add_argument("files", nargs="+", type=Path)
    given = reader.parse_args()
    if given.verb == "run":
        run_all(given.searches, given.kinds, given.seeds, given.out)
    else:
        table(given.files)


if __name__ == "__main__":
    main()
