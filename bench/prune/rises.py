"""How well each criterion foretells: the rise of the loss when the lowest quarter or half of one width alone goes.

python bench/prune/rises.py --images 6000 --dense-epochs 8
"""

import argparse
from pathlib import Path

import torch
from cells import Cells
from neurons import DATA, Bench

from luthier import importance
from luthier.allocate import measure_map


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", choices=list(DATA), default="fashion")
    parser.add_argument("--images", type=int, default=15_000)
    parser.add_argument("--dense-epochs", type=int, default=12)
    parser.add_argument("--dense-lr", type=float, default=3e-3)
    parser.add_argument("--cache", type=Path, default=Path("runs/bench-prune"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(args, Cells(args.cache / "rises.jsonl"), seed=0)
    for name in importance.names():
        found = measure_map(
            bench.analysis,
            bench.scores(name),
            lambda m: importance.mean_loss(m, bench.held_out, "cross_entropy"),
            ratios=(0.25, 0.5),
        )
        quarter, half = (sum(r[i] for r in found.rises.values()) for i in (0, 1))
        print(f"{name:<20} quarter {quarter:6.2f}  half {half:6.2f}", flush=True)


if __name__ == "__main__":
    main()
