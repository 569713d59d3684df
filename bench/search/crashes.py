"""What a region that crashes costs: trials until a level is reached, with and without it; crashed trials count.

OMP_NUM_THREADS=1 python bench/search/crashes.py [--seeds 10] [--most 80] [--algorithms bayes tpe random]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from branin_hartmann import PROBLEMS

import luthier as lt

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A problem, a region of it that crashes (about 30 % of the space), and the level to reach."""

    loss: Callable[[Params], float]
    space: lt.Space
    crashes: Callable[[Params], bool]
    level: float


def training(p: Params) -> float:
    """Shaped like a loss over learning rate, width, depth and optimiser: wider networks want smaller rates."""
    rate, width = math.log10(p["rate"]), math.log2(p["width"])
    best = {"sgd": -1.5, "adam": -3.0, "lion": -3.8}[p["optimizer"]] - 0.2 * (width - 6)
    penalty = {"sgd": 0.05, "adam": 0.0, "lion": 0.03}[p["optimizer"]]
    return 0.2 * (rate - best) ** 2 + 0.05 * (width - 7.5) ** 2 + 0.03 * (p["depth"] - 5) ** 2 + penalty


def diverges(p: Params) -> bool:
    """Too large a rate for the optimiser and the depth."""
    most = {"sgd": -0.7, "adam": -2.1, "lion": -2.9}[p["optimizer"]]
    return bool(math.log10(p["rate"]) + 0.05 * p["depth"] > most + 0.3)


TUNING = lt.Space(
    rate=lt.Float(1e-6, 1.0, log=True),
    width=lt.Int(8, 1024, log=True),
    depth=lt.Int(1, 12),
    optimizer=lt.Choice(["sgd", "adam", "lion"]),
)
(BRANIN, PLANE, _), (HARTMANN, CUBE, LEAST) = PROBLEMS["Branin"], PROBLEMS["Hartmann-6"]
CASES = {
    "Branin, a side crashes": Case(BRANIN, PLANE, lambda p: p["y"] > 10.5, 0.397887 + 0.05),
    "Branin, around an optimum": Case(BRANIN, PLANE, lambda p: p["x"] < -0.5, 0.397887 + 0.05),
    "Hartmann-6, a side crashes": Case(HARTMANN, CUBE, lambda p: p["x0"] > 0.7, LEAST + 0.4),
    "Training that diverges": Case(training, TUNING, diverges, 0.03),
}


def trials_to_level(case: Case, algorithm: str, crash: bool, seed: int, most: int) -> int:
    """Trials told until the level is reached, crashed ones among them."""
    loop = lt.AskTell(case.space, algorithm=algorithm, minimize="loss", seed=seed)
    for number in range(1, most + 1):
        trial = loop.ask()
        if crash and case.crashes(trial.params):
            loop.tell(trial, failed="diverged")
            continue
        value = case.loss(trial.params)
        loop.tell(trial, value)
        if value <= case.level:
            return number
    return most


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--seeds", type=int, default=10)
    reader.add_argument("--most", type=int, default=80)
    reader.add_argument("--algorithms", nargs="+", default=["bayes"])
    wanted = reader.parse_args()
    print("| problem | share that crashes | algorithm | trials without | trials with | more |\n|" + "---|" * 6)
    for name, case in CASES.items():
        rng = np.random.default_rng(0)
        share = np.mean([case.crashes(case.space.draw(rng)) for _ in range(2000)])
        for algorithm in wanted.algorithms:
            plain, crashing = (
                np.array([trials_to_level(case, algorithm, crash, seed, wanted.most) for seed in range(wanted.seeds)])
                for crash in (False, True)
            )
            gain = crashing - plain
            error = gain.std(ddof=1) / math.sqrt(len(gain)) if len(gain) > 1 else math.nan
            print(
                f"| {name} | {share:.0%} | {algorithm} | {plain.mean():.1f} | {crashing.mean():.1f} "
                f"| {gain.mean():+.1f} (s.e. {error:.1f}), {gain.mean() / plain.mean():+.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
