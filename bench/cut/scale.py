"""How the price of a cut grows: analysis and cut by number of nodes, and memory by size of the network.

python bench/cut/scale.py nodes      CPU seconds for graphs of 100 to 10,000 operations
python bench/cut/scale.py memory     peak memory of a cut as a multiple of the model's bytes, 100 M parameters
"""

from __future__ import annotations

import resource
import sys
import time
import warnings

import torch
from torch import nn

from luthier import importance
from luthier.allocate import allocate
from luthier.model import analyse
from luthier.model.analysis import infer
from luthier.model.trace import trace
from luthier.surgery import cut, prune_neurons


class Chain(nn.Module):
    """Residual blocks of five operations."""

    def __init__(self, blocks: int, width: int = 16) -> None:
        super().__init__()
        self.a = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(blocks))
        self.b = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for a, b in zip(self.a, self.b, strict=True):
            x = x + b(torch.relu(a(x)).neg())
        return x


def nodes() -> None:
    """One line per size of graph."""
    print("| operations | capture s | analysis s | scores + widths s | cut, unproven s | per 1,000 operations ms |")
    print("|---|---|---|---|---|---|")
    for count in (100, 1000, 3000, 10000):
        model = Chain(count // 5)
        start = time.process_time()
        traced = trace(model, torch.zeros(2, 16))
        marks = [time.process_time()]
        analysis = infer(model, traced)
        marks.append(time.process_time())
        keep = allocate(analysis, importance.score(analysis, "l2"), ratio=0.5)
        marks.append(time.process_time())
        cut(model, analysis, keep, check=False, target="graph")
        marks.append(time.process_time())
        steps = [b - a for a, b in zip([start, *marks], marks, strict=False)]
        each = 1e6 * sum(steps[1:]) / count
        print(f"| {count:,} | " + " | ".join(f"{s:.2f}" for s in steps) + f" | {each:.0f} |", flush=True)


def memory() -> None:
    """The peak beside what was there before, in bytes of the model."""
    model = nn.Sequential(*(nn.Sequential(nn.Linear(2048, 2048), nn.ReLU()) for _ in range(24)))
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    x = torch.zeros(2, 2048)
    analyse(nn.Linear(2, 2), torch.zeros(2, 2))  # the libraries are loaded
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    prune_neurons(model, x, ratio=0.5)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"model {size / 1e6:.0f} MB; peak with the model in it {(after - before + size) / size:.2f} times the model")


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    {"nodes": nodes, "memory": memory}[sys.argv[1]]()


if __name__ == "__main__":
    main()
