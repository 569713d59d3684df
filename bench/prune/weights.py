"""Weight pruning on Fashion-MNIST at 90, 95 and 98 %: one-shot and cubic, beside torch.nn.utils.prune, the same budget.

    python bench/prune/weights.py                      # the plan of the table: 15,000 images, 4 epochs, 3 seeds
    python bench/prune/weights.py --images 6000 --epochs 1 --seeds 1 --name weights-quick

Every network is trained by the same loop after (one-shot) or while (cubic, over the first half) it is pruned. Cells
are stored one by one in results/NAME.jsonl.
"""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path

import torch
from cells import Cells, pivot
from neurons import Bench
from torch import nn
from torch.nn.utils import prune as peer

import luthier as lt
from luthier.checkpoint import seeded

HERE = Path(__file__).parent
ONE_SHOT = (
    ("magnitude", "global"),
    ("magnitude", "lamp"),
    ("magnitude", "layer"),
    ("taylor", "global"),
    ("fisher", "global"),
    ("wanda", "layer"),
    ("obs", "layer"),
    ("obs", "lamp"),
)
CUBIC = (("magnitude", "global"), ("magnitude", "lamp"), ("taylor", "global"))


def train(bench: Bench, model: nn.Module, epochs: int, on_step: Callable[[int, int], None] | None = None) -> None:
    """AdamW (cosine) for some epochs; a callback before every tenth step."""
    x, y = bench.task.train
    steps = epochs * (len(x) // 128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=bench.args.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    with seeded(bench.seed):
        for step in range(steps):
            if on_step and step % 10 == 0:
                on_step(step, steps)
            if step % (len(x) // 128) == 0:
                order = torch.randperm(len(x))
            rows = order[128 * (step % (len(x) // 128)) :][:128]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    model.eval()


def ours(bench: Bench, sparsity: float, criterion: str, scope: str) -> dict:
    how = {"data": bench.sample, "loss": "cross_entropy"}
    masked = lt.prune_weights(bench.dense, ratio=sparsity, criterion=criterion, scope=scope, **how)
    cut = bench.test(masked.model)
    train(bench, masked.model, bench.args.epochs)
    return {"cut": cut, "tuned": bench.test(masked.model), "sparsity": masked.sparsity, **masked.bytes()}


def ours_cubic(bench: Bench, sparsity: float, criterion: str, scope: str) -> dict:
    model = copy.deepcopy(bench.dense)
    evidence = {} if criterion == "magnitude" else {"data": bench.sample[:2], "loss": "cross_entropy"}
    ramp = lt.Schedule(sparsity, steps=bench.args.epochs * (len(bench.task.train[0]) // 128) // 2)
    prune = lt.GradualPruning(model, ramp, scope, criterion, **evidence)
    train(bench, model, bench.args.epochs, lambda step, steps: prune(step))
    return {"tuned": bench.test(model), "sparsity": zeros(model)}


def theirs(bench: Bench, sparsity: float, cubic: bool) -> dict:
    model = copy.deepcopy(bench.dense)
    layers = [(m, "weight") for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    total = sum(m.weight.numel() for m, _ in layers)
    ramp = lt.Schedule(sparsity, steps=bench.args.epochs * (len(bench.task.train[0]) // 128) // 2)

    def to(ratio: float) -> None:
        gone = sum(int((m.weight_mask == 0).sum()) for m, _ in layers if hasattr(m, "weight_mask"))
        wanted = round(ratio * total) - gone
        if wanted > 0:  # the amount is a number of the weights that are left
            peer.global_unstructured(layers, peer.L1Unstructured, amount=wanted)

    if not cubic:
        to(sparsity)
        cut = bench.test(model)
        train(bench, model, bench.args.epochs)
        return {"cut": cut, "tuned": bench.test(model), "sparsity": zeros(model)}
    train(bench, model, bench.args.epochs, lambda step, steps: to(ramp(step)))
    return {"tuned": bench.test(model), "sparsity": zeros(model)}


def zeros(model: nn.Module) -> float:
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return sum(int((m.weight == 0).sum()) for m in layers) / sum(m.weight.numel() for m in layers)


def run(bench: Bench, cells: Cells) -> None:
    """All cells of a seed."""
    for sparsity in bench.args.sparsity:
        at = f"{sparsity:g}|{bench.seed}"
        cells(f"one-shot|torch.nn.utils.prune L1|{at}", lambda s=sparsity: theirs(bench, s, False))
        cells(f"cubic|torch.nn.utils.prune L1|{at}", lambda s=sparsity: theirs(bench, s, True))
        for how in CUBIC:
            cells(f"cubic|{', '.join(how)}|{at}", lambda s=sparsity, h=how: ours_cubic(bench, s, *h))
        for how in ONE_SHOT:
            cells(f"one-shot|{', '.join(how)}|{at}", lambda s=sparsity, h=how: ours(bench, s, *h))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", choices=["fashion", "reuters"], default="fashion")
    parser.add_argument("--images", type=int, default=15_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--dense-epochs", type=int, default=12)
    parser.add_argument("--lr", type=float, default=5e-3, help="of the training with masks")
    parser.add_argument("--dense-lr", type=float, default=3e-3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.9, 0.95, 0.98])
    parser.add_argument("--name", default="weights")
    parser.add_argument("--cache", type=Path, default=Path("runs/bench-prune"))
    parser.add_argument("--only", default="", help="a regular expression: only these cells")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cells = Cells(HERE / "results" / f"{args.name}.jsonl", args.only)
    for seed in range(0 if args.report else args.seeds):
        run(Bench(args, cells, seed), cells)
    for value in ("cut", "tuned"):
        print(f"\nTest accuracy in %, {'right after pruning' if value == 'cut' else 'at the end'}\n")
        for prefix in ("one-shot", "cubic"):
            print("\n".join(pivot(cells.known, args.sparsity, value, prefix)), end="\n\n")


if __name__ == "__main__":
    main()
