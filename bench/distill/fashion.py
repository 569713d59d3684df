"""A residual network teaches one a quarter of its width on Fashion-MNIST: each loss, three seeds.

python bench/distill/fashion.py runs/distill            # every cell that is not there yet; each is stored when done
python bench/distill/fashion.py runs/distill --table    # the table

Needs the Debian package dataset-fashion-mnist (apt-get install dataset-fashion-mnist).
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import luthier as lt
from luthier.distillation import Fade
from luthier.distillation import losses as known
from luthier.distillation.lesson import Share

FOLDER = Path("/usr/share/datasets/fashion-mnist")
LEARN, CHOOSE = 10_000, 2_000  # images of the training file; the test file's 10,000 are scored once a cell
SEEDS = (0, 1, 2)
RECIPE = {"epochs": 8, "lr": 2e-3, "weight_decay": 0.05, "progress": False}
FEATURES = ("stage1", "stage2", "stage3")
# Weights: as in the papers where these give them for classification, else 0.9 beside 0.1 for the task; two that proved
# too strong also much weaker; four that fall to nothing over the run.
CELLS: dict[str, tuple[Mapping[str, Share], tuple[str, ...] | None]] = {
    "task": ({"task": 1.0}, None),
    "kl": ({"kl": 0.9, "task": 0.1}, None),
    "kl, fading": ({"kl": Fade(0.9), "task": Fade(0.1, 1.0)}, None),
    "dkd": ({"dkd": 0.9, "task": 0.1}, None),
    "dkd, weaker": ({"dkd": 0.1, "task": 0.9}, None),
    "dkd, fading": ({"dkd": Fade(0.9), "task": Fade(0.1, 1.0)}, None),
    "mse": ({"mse": 0.9, "task": 0.1}, None),
    "cosine": ({"cosine": 0.9, "task": 0.1}, None),
    "hint": ({"hint": 1.0, "task": 1.0}, FEATURES),
    "attention": ({"attention": 1000.0, "task": 1.0}, FEATURES),
    "attention, weaker": ({"attention": 50.0, "task": 1.0}, FEATURES),
    "attention, fading": ({"attention": Fade(1000.0), "task": 1.0}, FEATURES),
    "rkd": ({"rkd": 25.0, "task": 1.0}, ("pool",)),
    "crd": ({"crd": 0.8, "task": 1.0}, ("pool",)),
    "crd, fading": ({"crd": Fade(0.8), "task": 1.0}, ("pool",)),
    "kl + attention": ({"kl": 0.9, "task": 0.1, "attention": 1000.0}, FEATURES),
}


class Block(nn.Module):
    """Two convolutions beside a short cut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def network(width: int, seed: int) -> nn.Module:
    """Three stages of one block each: (n, 1, 28, 28) -> (n, 10)."""
    torch.manual_seed(seed)
    net = nn.Sequential()
    net.add_module("stem", nn.Sequential(nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()))
    net.add_module("stage1", Block(width, width, 1))
    net.add_module("stage2", Block(width, 2 * width, 2))
    net.add_module("stage3", Block(2 * width, 4 * width, 2))
    net.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    net.add_module("head", nn.Linear(4 * width, 10))
    return net


def read(name: str) -> tuple[Tensor, Tensor]:
    """Images of shape (n, 1, 28, 28) and classes."""
    if not FOLDER.is_dir():
        raise SystemExit("Fashion-MNIST is missing: apt-get install dataset-fashion-mnist")
    images = gzip.decompress((FOLDER / f"{name}-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((FOLDER / f"{name}-labels-idx1-ubyte.gz").read_bytes())[8:]
    x = np.frombuffer(images, np.uint8).reshape(-1, 1, 28, 28).astype(np.float32) / 255
    return torch.from_numpy(x - 0.2860) / 0.3530, torch.from_numpy(np.frombuffer(labels, np.uint8).astype(np.int64))


def task(learn: int = LEARN) -> lt.Task:
    x, y = read("train")
    return lt.Task(train=(x[:learn], y[:learn]), valid=(x[-CHOOSE:], y[-CHOOSE:]), test=read("t10k"), batch_size=64)


def teacher(folder: Path) -> nn.Module:
    """32 channels wide, trained once on twice the images; the students have 8."""
    net, path = network(32, seed=0), folder / "teacher.pt"
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    lt.fit(net, task(2 * LEARN), **RECIPE)
    torch.save(net.state_dict(), path)
    return net


def cell(name: str, seed: int, source: nn.Module, data: lt.Task) -> dict[str, object]:
    weights, taps = CELLS[name]
    student, start = network(8, seed), time.process_time()
    lt.distill(student, source, data, losses=weights, taps=taps, seed=seed, **RECIPE)
    seconds = time.process_time() - start
    return {"loss": name, "seed": seed, **lt.evaluate(student, data.loader("test")), "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    store = given.folder / "cells.jsonl"
    done = [json.loads(line) for line in store.read_text().splitlines()] if store.exists() else []
    if given.table:
        print(table(done))
        return
    torch.set_num_threads(1)
    source, data = teacher(given.folder), task()
    print("teacher", lt.evaluate(source, data.loader("test")), flush=True)
    names = [n for n in CELLS if all(part == "task" or part in known.names() for part in CELLS[n][0])]
    for seed in SEEDS:
        for name in names:
            if not any(d["loss"] == name and d["seed"] == seed for d in done):
                found = cell(name, seed, source, data)
                with store.open("a") as file:
                    file.write(json.dumps(found) + "\n")
                print(found, flush=True)


def table(done: list[dict[str, float]]) -> str:
    """Mean test accuracy, and the mean difference from plain training of the same seed."""
    plain = {d["seed"]: d["accuracy"] for d in done if d["loss"] == "task"}
    lines = ["| loss | accuracy | difference from `task`, points | seeds | CPU seconds |", "|---|---|---|---|---|"]
    for name in CELLS:
        mine = [d for d in done if d["loss"] == name]
        gaps = [100 * (d["accuracy"] - plain[d["seed"]]) for d in mine if d["seed"] in plain]
        if gaps:
            spread = f" ± {stdev(gaps):.2f}" if len(gaps) > 1 else ""
            seconds, score = mean(d["seconds"] for d in mine), mean(d["accuracy"] for d in mine)
            lines.append(f"| {name} | {score:.4f} | {mean(gaps):+.2f}{spread} | {len(gaps)} | {seconds:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
