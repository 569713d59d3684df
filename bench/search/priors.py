"""What a belief is worth: the same search with a right, no and a wrong prior.

OMP_NUM_THREADS=1 python bench/search/priors.py [--seeds 10] [--algorithms bayes tpe random]

A right prior lies a tenth of the range from the optimum, a wrong one as far from it as the range allows.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import luthier as lt

Problem = tuple[dict[str, tuple[float, float, bool]], dict[str, float], Callable[[Mapping[str, Any]], float]]


def branin(p: Mapping[str, Any]) -> float:
    a, b, c = 1.0, 5.1 / (4 * math.pi**2), 5 / math.pi
    x, y = p["x"], p["y"]
    return a * (y - b * x * x + c * x - 6) ** 2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10 - 0.397887


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
BEST = {f"x{i}": v for i, v in enumerate([0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573])}


def hartmann(p: Mapping[str, Any]) -> float:
    x = np.array([p[f"x{i}"] for i in range(6)])
    return float(3.32237 - np.array([1, 1.2, 3, 3.2]) @ np.exp(-(A * (x - P) ** 2).sum(1)))


def curve(p: Mapping[str, Any]) -> float:
    """A tuning curve: log learning rate, log decay, width and an optimiser."""
    lr, decay = math.log10(p["lr"]), math.log10(p["decay"])
    width = math.log2(p["width"])
    wrong = {"sgd": 0.3, "adam": 0.1, "adamw": 0.0, "rmsprop": 0.25}[p["opt"]]
    return 0.1 * (lr + 3 + 0.2 * (width - 6)) ** 2 + 0.03 * (decay + 4) ** 2 + 0.02 * (width - 7) ** 2 + wrong


def space_of(name: str, belief: str) -> lt.Space:
    """The problem's space with a right, wrong or no prior."""

    def prior(low: float, high: float, best: float, log: bool = False) -> float | None:
        place = (math.log(best / low) / math.log(high / low)) if log else (best - low) / (high - low)
        far = 0.05 if place > 0.5 else 0.95
        at = {"right": place + (0.1 if place < 0.5 else -0.1), "wrong": far}.get(belief)
        return None if at is None else lt.Float(low, high, log=log).from_unit(at)

    if name == "branin":
        return lt.Space(x=lt.Float(-5, 10, prior=prior(-5, 10, math.pi)), y=lt.Float(0, 15, prior=prior(0, 15, 2.275)))
    if name == "hartmann-6":
        return lt.Space({n: lt.Float(0, 1, prior=prior(0, 1, v)) for n, v in BEST.items()})
    width = prior(8, 1024, 128, True)
    return lt.Space(
        lr=lt.Float(1e-6, 1, log=True, prior=prior(1e-6, 1, 10**-3.2, True)),
        decay=lt.Float(1e-7, 1e-1, log=True, prior=prior(1e-7, 1e-1, 1e-4, True)),
        width=lt.Int(8, 1024, log=True, prior=None if width is None else round(width)),
        opt=lt.Choice(["sgd", "adam", "adamw", "rmsprop"], prior={"right": "adamw", "wrong": "sgd"}.get(belief)),
    )


PROBLEMS = {"branin": branin, "hartmann-6": hartmann, "curve": curve}
AT = (5, 10, 20, 30, 40)


def run(algorithm: str, name: str, belief: str, seed: int) -> list[float]:
    loop = lt.AskTell(space_of(name, belief), algorithm=algorithm, minimize="loss", seed=seed)
    losses = []
    for _ in range(AT[-1]):
        trial = loop.ask()
        losses.append(PROBLEMS[name](trial.params))
        loop.tell(trial, losses[-1])
    return [min(losses[:n]) for n in AT]


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--seeds", type=int, default=10)
    reader.add_argument("--algorithms", nargs="+", default=["bayes", "tpe", "random"])
    reader.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    wanted = reader.parse_args()
    print("| problem | algorithm | prior | " + " | ".join(f"after {n}" for n in AT) + " |")
    print("|---" * (len(AT) + 3) + "|")
    for name in wanted.problems:
        for algorithm in wanted.algorithms:
            for belief in ("right", "none", "wrong"):
                found = np.median([run(algorithm, name, belief, s) for s in range(wanted.seeds)], axis=0)
                cells = " | ".join(f"{v:.3g}" for v in found)
                print(f"| {name} | {algorithm} | {belief} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
