"""``luthier profile FILE``."""

from __future__ import annotations

import click
from rich.console import Console

from luthier.cli._network import read_network


@click.command(name="profile")
@click.argument("file", type=click.Path())
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Of the latency measurement.")
def command(file: str, batch_size: int) -> None:
    """Show what the network that FILE defines costs, where, and how much of it can be cut."""
    import torch

    from luthier.measure.profile import profile

    _, model, task = read_network(file)
    example = task.example()
    rows = torch.arange(batch_size) % len(example[0])
    Console().print(profile(model, tuple(x[rows] for x in example)))


COMMAND = command
