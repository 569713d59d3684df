"""``luthier prune FILE``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from luthier.cli._network import MULTIPLE, as_mapping, need_onnx, publish, read_network, trained
from luthier.errors import UsageError

if TYPE_CHECKING:  # torch takes seconds to load, and `luthier --help` loads this file
    from torch import Tensor

    from luthier.allocate import SensitivityMap
    from luthier.model import Analysis
    from luthier.task import Task


@click.command(name="prune", short_help="Cut neurons from a network, once.")
@click.argument("file", type=click.Path())
@click.option("--ratio", type=click.FloatRange(0, 1, max_open=True), help="Share removed from every width, in [0, 1).")
@click.option("--budget", multiple=True, help="NAME=SHARE that may be left, such as macs=0.5; instead of --ratio.")
@click.option("--criterion", default="auto", show_default=True, help="See `luthier methods`.")
@click.option("--allocate", help="How much where. Default: uniform with --ratio, sensitivity with --budget.")
@click.option(
    "--multiple",
    type=MULTIPLE,
    default="auto",
    show_default=True,
    help="Widths are kept at multiples of this; auto: what this machine's runtime likes, measured once.",
)
@click.option(
    "--epochs",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of recovery, distilled from the dense network.",
)
@click.option("--out", type=click.Path(), help="Folder for the files. Default: runs/<FILE's name>-pruned")
def command(
    file: str,
    ratio: float | None,
    budget: tuple[str, ...],
    criterion: str,
    allocate: str | None,
    multiple: int | str,
    epochs: int,
    out: str | None,
) -> None:
    """Cut neurons from the network that FILE defines, once, and prove the result; no search."""
    from luthier import importance
    from luthier.allocate import needs_map
    from luthier.compression.line import loss_of, sample
    from luthier.distillation import distill
    from luthier.model import analyse
    from luthier.surgery import cut, rounded, widths_for
    from luthier.train import recalibrate

    if (ratio is None) == (not budget):
        raise UsageError("say how much to cut in one way", expected="--ratio 0.5 or --budget macs=0.5")
    need_onnx()
    console = Console()
    module, model, task = read_network(file)
    model = trained(file, module, model, task)
    method = allocate or ("uniform" if ratio is not None else "sensitivity")
    analysis = analyse(model, task.example())
    scores = importance.score(analysis, criterion, sample(task), loss_of(task), groups=analysis.groups)
    amount = {"ratio": ratio, "budget": as_mapping(budget) or None}
    found = _shown(console, analysis, scores, task) if needs_map(method) else None
    keep = rounded(partial(widths_for, analysis, scores, amount, method, found=found), analysis, multiple)
    pruned = cut(model, analysis, keep)
    recalibrate(pruned.model, task)
    if epochs:
        distill(pruned.model, model, task, epochs=epochs)
    console.print(str(pruned.plan), highlight=False, markup=False, soft_wrap=True)
    publish(console, Path(out or f"runs/{Path(file).stem}-pruned"), task, ("dense", model), ("pruned", pruned))


def _shown(console: Console, analysis: Analysis, scores: Mapping[str, Tensor], task: Task) -> SensitivityMap:
    """What the removal of each width alone does to the loss on validation data, printed."""
    from luthier import importance
    from luthier.allocate import measure_map
    from luthier.compression.line import loss_of, sample

    held_out = sample(task, "valid")
    found = measure_map(analysis, scores, lambda m: importance.mean_loss(m, held_out, loss_of(task)))
    console.print("Removal of each width alone, on validation data:")
    console.print(str(found), highlight=False, markup=False, soft_wrap=True)
    return found


COMMAND = command
