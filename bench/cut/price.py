"""What a cut costs beside the capture: analysis, scores, widths, slicing; and the proofs.

    python bench/cut/price.py FILE

FILE is a Python file with ``networks()``: yields (name, module, inputs). CPU seconds, one thread, medians at the end.
"""

from __future__ import annotations

import runpy
import statistics
import sys
import time
import warnings

import torch

from luthier import importance
from luthier.allocate import allocate
from luthier.model.analysis import infer
from luthier.model.trace import trace
from luthier.surgery import cut


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found: list[list[float]] = []
    print("| network | capture | analysis + cut | with proofs |\n|---|---|---|---|")
    for name, model, inputs in runpy.run_path(sys.argv[1])["networks"]():
        start = time.process_time()
        traced = trace(model, inputs)
        captured = time.process_time()
        analysis = infer(model, traced)
        keep = allocate(analysis, importance.score(analysis, "l2"), ratio=0.5)
        cut(model, analysis, keep, check=False, target="graph")
        done = time.process_time()
        cut(model, analysis, keep)
        proven = time.process_time()
        found.append([captured - start, done - captured, proven - done])
        print(f"| {name} | " + " | ".join(f"{s:.3f}" for s in found[-1]) + " |", flush=True)
    medians = [statistics.median(column) for column in zip(*found, strict=True)]
    print(f"| median of {len(found)} | " + " | ".join(f"{s:.3f}" for s in medians) + " |")


if __name__ == "__main__":
    main()
