"""``luthier distill FILE``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from luthier.cli._network import as_mapping, made, read_network, recipe_of
from luthier.extras import need


@click.command(name="distill")
@click.argument("file", type=click.Path())
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True)
@click.option("--lr", type=float, default=1e-3, show_default=True)
@click.option("--loss", "losses", multiple=True, help="NAME=WEIGHT, several times; default: kl=0.9 and task=0.1.")
@click.option("--temperature", type=float, default=4.0, show_default=True)
@click.option("--out", type=click.Path(), help="Folder for the files. Default: runs/<FILE's name>-student")
def command(file: str, epochs: int, lr: float, losses: tuple[str, ...], temperature: float, out: str | None) -> None:
    """Distil the network that FILE's model() gives into the one that its student() gives."""
    from torch import nn

    from luthier.distillation import distill
    from luthier.export import export_onnx, save
    from luthier.train import fit, validate

    for needed in ("onnxruntime", "onnxscript"):
        need(needed, "onnx", "this command")
    console = Console()
    module, teacher, task = read_network(file, also=("student",))
    student = made(file, module, "student", nn.Module)
    recipe = recipe_of(file, module)
    if recipe is not None:
        teacher = fit(teacher, task, **recipe)
    weights = as_mapping(losses) or None
    distill(student, teacher, task, losses=weights, temperature=temperature, epochs=epochs, lr=lr)
    place = Path(out or f"runs/{Path(file).stem}-student")
    console.print(str(export_onnx(student, place / "model.onnx", task.example())), highlight=False)
    save(student, place / "model.luthier", inputs=task.example())
    for name, network in (("teacher", teacher), ("student", student)):
        scores = ", ".join(f"{k} {v:.4f}" for k, v in validate(network, task).items())
        console.print(f"{name}: {scores}", highlight=False)
    console.print(f"files: {place}", highlight=False)


COMMAND = command
