"""``luthier distill FILE``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from luthier.cli._network import as_mapping, made, need_onnx, publish, read_network, trained


@click.command(name="distill", short_help="Train a small network by a large one.")
@click.argument("file", type=click.Path())
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True)
@click.option("--lr", type=float, default=1e-3, show_default=True)
@click.option(
    "--loss",
    "losses",
    multiple=True,
    help="NAME=WEIGHT, several times. Default: half kl, half task, fading to task alone.",
)
@click.option("--temperature", type=float, default=4.0, show_default=True)
@click.option("--out", type=click.Path(), help="Folder for the files. Default: runs/<FILE's name>-student")
def command(file: str, epochs: int, lr: float, losses: tuple[str, ...], temperature: float, out: str | None) -> None:
    """Distil the network that FILE's model() gives into the one that its student() gives."""
    from torch import nn

    from luthier.distillation import distill

    need_onnx()
    module, teacher, task = read_network(file, also=("student",))
    student = made(file, module, "student", nn.Module)
    teacher = trained(file, module, teacher, task)
    distill(student, teacher, task, losses=as_mapping(losses) or None, temperature=temperature, epochs=epochs, lr=lr)
    place = Path(out or f"runs/{Path(file).stem}-student")
    publish(Console(), place, task, ("teacher", teacher), ("student", student))


COMMAND = command
