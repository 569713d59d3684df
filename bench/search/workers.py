"""What asking ahead costs: trials until a level is reached, one worker against several that ask before results come.

OMP_NUM_THREADS=1 python bench/search/workers.py [--seeds 8] [--workers 8] [--most 80]
"""

from __future__ import annotations

import argparse
import statistics
from collections import deque

from branin_hartmann import PROBLEMS

import luthier as lt

LEVELS = {"Branin": 0.01, "Hartmann-6": 0.4}


def trials_to_level(problem: str, algorithm: str, workers: int, seed: int, most: int) -> int:
    """Trials told until the level is reached; each result comes after ``workers - 1`` further proposals."""
    function, space, optimum = PROBLEMS[problem]
    loop, running = lt.AskTell(space, algorithm=algorithm, minimize="loss", seed=seed), deque[lt.Trial]()
    for told in range(most):
        while len(running) < workers:
            running.append(loop.ask())
        trial = running.popleft()
        value = function(trial.params)
        loop.tell(trial, value)
        if value - optimum < LEVELS[problem]:
            return told + 1
    return most


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--seeds", type=int, default=8)
    reader.add_argument("--workers", type=int, default=8)
    reader.add_argument("--most", type=int, default=80)
    wanted = reader.parse_args()
    print("| problem | distance to the optimum | mean trials, 1 worker | mean trials, several |\n|---|---|---|---|")
    for problem, level in LEVELS.items():
        cells = []
        for workers in (1, wanted.workers):
            counts = [trials_to_level(problem, "bayes", workers, seed, wanted.most) for seed in range(wanted.seeds)]
            cells.append(f"{statistics.mean(counts):.1f}")
        print(f"| {problem} | {level} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
