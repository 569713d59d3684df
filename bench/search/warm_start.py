"""What other studies are worth: a search from nothing, and one warmed up by a related, unrelated or misleading study.

OMP_NUM_THREADS=1 python bench/search/warm_start.py [--seeds 8] [--algorithms bayes tpe]

The other study has 60 results of random search and bayes, half each, on: "related", the same function moved by a tenth
of the range and scaled; "unrelated", another function; "misleading", the same function turned upside down.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from priors import BEST, branin, curve, hartmann, space_of

import luthier as lt

Function = Callable[[lt.Trial | dict], float]
FUNCTIONS = {"branin": branin, "hartmann-6": hartmann, "curve": curve}
AT = (3, 5, 10, 20, 30, 40)


def moved(name: str, by: float) -> Callable[[dict], float]:
    """The function with its numbers moved by a share of their range."""
    space = space_of(name, "none")

    def function(params: dict) -> float:
        unit = space.to_unit(params)
        kinds = [isinstance(space[n], lt.Choice) for n in space.names]
        return 3.0 * FUNCTIONS[name](space.from_unit(np.where(kinds, unit, np.clip(unit + by, 0, 1)))) + 5.0

    return function


def unrelated(name: str) -> Callable[[dict], float]:
    """A bowl about a corner."""
    space = space_of(name, "none")
    return lambda params: float(((space.to_unit(params) - 0.85) ** 2).sum())


OTHERS = {
    "related": lambda name: moved(name, 0.1),
    "the same": lambda name: moved(name, 0.0),
    "unrelated": unrelated,
    "misleading": lambda name: lambda params: -FUNCTIONS[name](params),
}


def study(name: str, function: Callable[[dict], float], seed: int) -> lt.AskTell:
    """Thirty results of random search, then thirty of bayes."""
    space, rng = space_of(name, "none"), np.random.default_rng(1000 + seed)
    loop = lt.AskTell(space, algorithm="bayes", minimize="loss", seed=1000 + seed)
    for _ in range(30):
        params = space.draw(rng)
        loop.add(params, function(params))
    for _ in range(30):
        trial = loop.ask()
        loop.tell(trial, function(trial.params))
    return loop


def run(algorithm: str, name: str, other: lt.AskTell | None, seed: int) -> list[float]:
    space = space_of(name, "none")
    loop = lt.AskTell(space, algorithm=algorithm, minimize="loss", seed=seed, warm_start=other)
    losses = []
    for _ in range(AT[-1]):
        trial = loop.ask()
        losses.append(FUNCTIONS[name](trial.params))
        loop.tell(trial, losses[-1])
    return [min(losses[:n]) for n in AT]


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--seeds", type=int, default=8)
    reader.add_argument("--algorithms", nargs="+", default=["bayes", "tpe"])
    reader.add_argument("--problems", nargs="+", default=list(FUNCTIONS))
    wanted = reader.parse_args()
    assert len(BEST) == 6
    print("| problem | algorithm | other study | " + " | ".join(f"after {n}" for n in AT) + " |")
    print("|---" * (len(AT) + 3) + "|")
    for name in wanted.problems:
        for algorithm in wanted.algorithms:
            for kind in ("none", *OTHERS):
                found = []
                for seed in range(wanted.seeds):
                    other = None if kind == "none" else study(name, OTHERS[kind](name), seed)
                    found.append(run(algorithm, name, other, seed))
                cells = " | ".join(f"{v:.3g}" for v in np.median(found, axis=0))
                print(f"| {name} | {algorithm} | {kind} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
