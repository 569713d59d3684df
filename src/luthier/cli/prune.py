"""``luthier prune FILE``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from luthier.cli._network import read_network, recipe_of
from luthier.extras import need


@click.command(name="prune")
@click.argument("file", type=click.Path())
@click.option(
    "--ratio",
    type=click.FloatRange(0, 1, max_open=True),
    required=True,
    help="Share removed from every width, in [0, 1).",
)
@click.option("--criterion", default="l2", show_default=True, help="See `luthier methods`.")
@click.option(
    "--multiple", type=click.IntRange(1), default=8, show_default=True, help="Widths are kept at multiples of this."
)
@click.option(
    "--epochs",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of recovery, distilled from the dense network.",
)
@click.option("--out", type=click.Path(), help="Folder for the files. Default: runs/<FILE's name>-pruned")
def command(file: str, ratio: float, criterion: str, multiple: int, epochs: int, out: str | None) -> None:
    """Cut neurons from the network that FILE defines, once, and prove the result; no search."""
    from luthier.distillation import distill
    from luthier.export import export_onnx, save
    from luthier.surgery import prune_neurons
    from luthier.train import fit, recalibrate, validate

    for needed in ("onnxruntime", "onnxscript"):
        need(needed, "onnx", "this command")
    console = Console()
    module, model, task = read_network(file)
    recipe = recipe_of(file, module)
    if recipe is not None:
        model = fit(model, task, **recipe)
    data = [(*batch.inputs, batch.target) for _, batch in zip(range(8), task.batches("train"), strict=False)]
    pruned = prune_neurons(
        model, task.example(), ratio=ratio, criterion=criterion, multiple=multiple, data=data, loss=task.loss_function
    )
    recalibrate(pruned.model, task)
    if epochs:
        distill(pruned.model, model, task, epochs=epochs)
    place = Path(out or f"runs/{Path(file).stem}-pruned")
    console.print(pruned.plan)
    console.print(str(export_onnx(pruned, place / "model.onnx", task.example())), highlight=False)
    save(pruned, place / "model.luthier")
    for name, network in (("dense", model), ("pruned", pruned.model)):
        scores = ", ".join(f"{k} {v:.4f}" for k, v in validate(network, task).items())
        console.print(f"{name}: {scores}", highlight=False)
    console.print(f"files: {place}", highlight=False)


COMMAND = command
