"""What repairs a cut without training: mean compensation, least squares, new batch-norm statistics, each and together.

python bench/cut/repair.py [seeds]      # the digits network of examples/, trained and cut by l2; no training afterwards
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

import luthier as lt
from luthier.train import recalibrate

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import digits

RATIOS = (0.25, 0.5, 0.75)
REPAIRS = [(compensate, again) for compensate in (None, "mean", "least_squares") for again in (False, True)]


def accuracies(seed: int) -> dict[tuple[object, ...], float]:
    """Validation accuracy in % of each cut, by (ratio, compensation, recalibrated)."""
    task = digits.task()
    torch.manual_seed(seed)
    dense = lt.fit(digits.DigitNet(32), task, **digits.recipe, seed=seed, progress=False)
    batches = list(DataLoader(TensorDataset(*task.train), batch_size=64))[:10]  # of (images, targets)
    images = batches[0][0]
    found: dict[tuple[object, ...], float] = {
        ("dense",): lt.evaluate(dense, task.valid, metrics=["accuracy"])["accuracy"]
    }
    for ratio in RATIOS:
        for compensate, again in REPAIRS:
            cut = lt.prune_neurons(dense, images, ratio=ratio, compensate=compensate, data=batches).model
            if again:
                recalibrate(cut, task)
            found[ratio, compensate, again] = lt.evaluate(cut, task.valid, metrics=["accuracy"])["accuracy"]
    return {key: 100 * value for key, value in found.items()}


def main() -> None:
    """Prints means and ranges over seeds."""
    runs = [accuracies(seed) for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)]

    def cell(key: tuple[object, ...]) -> str:
        values = [run[key] for run in runs]
        return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"

    print(f"dense: {cell(('dense',))}\n")
    print("| compensation | batch norms | " + " | ".join(f"ratio {r}" for r in RATIOS) + " |")
    print("|---|---|" + "---|" * len(RATIOS))
    for compensate, again in REPAIRS:
        row = " | ".join(cell((ratio, compensate, again)) for ratio in RATIOS)
        print(f"| {compensate or 'none'} | {'measured again' if again else 'as they were'} | {row} |")


if __name__ == "__main__":
    main()
