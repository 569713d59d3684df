"""What a proposal costs: CPU milliseconds of one ask and tell after n results, by algorithm.

OMP_NUM_THREADS=1 python bench/search/price.py [--results 10 50 100 200 1000] [--dimensions 6] [--algorithms bayes tpe]
The same of one order, or one selection, of so many items: [--permutation 50] [--subset 50] [--asks 12]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

import luthier as lt
from luthier import search

MIXED = lt.Space(
    a=lt.Float(-5, 5),
    b=lt.Float(-5, 5),
    lr=lt.Float(1e-5, 1, log=True),
    d=lt.Float(0, 1),
    k=lt.Int(1, 20),
    c=lt.Choice(["u", "v", "w"]),
)


def wide(d: int) -> lt.Space:
    """Half numbers, a quarter whole numbers, a quarter categories."""
    kinds = [lt.Float(0, 1), lt.Float(1e-4, 1, log=True), lt.Int(1, 30), lt.Choice(["u", "v", "w"])]
    return lt.Space({f"x{i}": kinds[i % 4] for i in range(d)})


def value(params: Mapping[str, Any]) -> float:
    """Any smooth function does."""
    if "items" in params:
        return sum(abs(i - item) for i, item in enumerate(params["items"]))
    numbers = [v if isinstance(v, int | float) else len(v) for v in params.values()]
    return sum(math.sin(i + float(v)) for i, v in enumerate(numbers))


def price(algorithm: str, space: lt.Space, results: int, asks: int = 12) -> tuple[float, float]:
    """Median and mean CPU milliseconds of an ask and tell; the first, which reads the history, is left out."""
    loop, rng = lt.AskTell(space, algorithm=algorithm, minimize="loss"), np.random.default_rng(0)
    for _ in range(results):
        params = space.draw(rng)
        loop.add(params, value(params))
    spent = []
    for _ in range(asks + 1):
        start = time.process_time()
        trial = loop.ask()
        loop.tell(trial, value(trial.params))
        spent.append((time.process_time() - start) * 1e3)
    return float(np.median(spent[1:])), float(np.mean(spent[1:]))


def chosen(wanted: argparse.Namespace) -> lt.Space:
    """The space that was asked for."""
    if wanted.permutation:
        return lt.Space(items=lt.Permutation(range(wanted.permutation)))
    if wanted.subset:
        return lt.Space(items=lt.Subset(range(wanted.subset)))
    return MIXED if wanted.dimensions == 6 else wide(wanted.dimensions)


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--results", nargs="+", type=int, default=[10, 50, 100, 200, 1000])
    reader.add_argument("--dimensions", type=int, default=6)
    reader.add_argument("--permutation", type=int)
    reader.add_argument("--subset", type=int)
    reader.add_argument("--asks", type=int, default=12)
    reader.add_argument("--algorithms", nargs="+", default=[n for n in search.names() if n != "grid"])
    wanted = reader.parse_args()
    space = chosen(wanted)
    print(
        f"CPU ms of an ask and tell, median / mean of {wanted.asks}, {len(space)} parameters, {space.width} columns\n"
    )
    print("| algorithm | " + " | ".join(f"n = {n}" for n in wanted.results) + " |")
    print("|---" * (len(wanted.results) + 1) + "|")
    for algorithm in wanted.algorithms:
        cells = ["{:.2g} / {:.2g}".format(*price(algorithm, space, n, wanted.asks)) for n in wanted.results]
        print(f"| {algorithm} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
