"""``luthier profile FILE``."""

from __future__ import annotations

import json

import click
from rich.console import Console

from luthier.cli._network import read_network


@click.command(name="profile", short_help="Show what a network costs, and where.")
@click.argument("file", type=click.Path())
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Of the latency measurement.")
@click.option("--json", "as_json", is_flag=True, help="Plain data instead of a tree.")
def command(file: str, batch_size: int, as_json: bool) -> None:
    """Show what the network that FILE defines costs, where, and how much of it can be cut.

    Beside each layer's MACs stands the time of its operations, each measured alone in ONNX Runtime on one thread.
    """
    import torch

    from luthier.measure.profile import profile

    _, model, task = read_network(file)
    example = task.example()
    rows = torch.arange(batch_size) % len(example[0])
    found = profile(model, tuple(x[rows] for x in example))
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        Console().print(found)


COMMAND = command
