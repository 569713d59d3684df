"""What the commands over networks share: a FILE that defines `model()` and `task()`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from luthier.cli._load import load_file
from luthier.errors import UsageError
from luthier.extras import need

if TYPE_CHECKING:  # torch takes seconds to load, and `luthier --help` loads this file
    from pathlib import Path

    from rich.console import Console
    from torch import nn

    from luthier.task import Task


class _Multiple(click.ParamType[int | str]):
    """A whole number from 1, or "auto"."""

    name = "INTEGER|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """The number, or "auto"."""
        return "auto" if value == "auto" else click.IntRange(1).convert(value, param, ctx)


MULTIPLE = _Multiple()


def read_network(file: str, also: tuple[str, ...] = ()) -> tuple[ModuleType, nn.Module, Task]:
    """Runs a FILE's ``model()`` and ``task()``.

    Args:
        file: its path.
        also: other names that it must define.

    Raises:
        UsageError: a name is missing, or gives something else.
    """
    need("torch", "torch", "this command")
    from torch import nn

    from luthier.task import Task

    module = load_file(file, needs=("model", "task", *also))
    return module, made(file, module, "model", nn.Module), made(file, module, "task", Task)


def made(file: str, module: ModuleType, name: str, kind: type) -> Any:
    """What the FILE's function of that name gives.

    Raises:
        UsageError: it is no function, or gives something else.
    """
    function: Callable[[], Any] = getattr(module, name)
    thing = function() if callable(function) and not isinstance(function, kind) else function
    if not isinstance(thing, kind):
        raise UsageError(
            f"{file}: {name}() gives no {kind.__name__}", expected=f"a {kind.__name__}", got=type(thing).__name__
        )
    return thing


def recipe_of(file: str, module: ModuleType) -> Mapping[str, Any] | None:
    """The FILE's ``recipe``: how its model is trained first; None where it is trained already."""
    recipe = getattr(module, "recipe", None)
    if recipe is not None and not isinstance(recipe, Mapping):
        raise UsageError(
            f"{file}: 'recipe' is no dict", expected='recipe = {"epochs": 10, "lr": 1e-3}', got=type(recipe).__name__
        )
    return recipe


def trained(file: str, module: ModuleType, model: nn.Module, task: Task) -> nn.Module:
    """The FILE's model, trained by its ``recipe`` where it has one."""
    from luthier.train import fit

    recipe = recipe_of(file, module)
    return model if recipe is None else fit(model, task, **recipe)


def need_onnx() -> None:
    """Says what to install where a file cannot be exported."""
    for module in ("onnxruntime", "onnxscript"):
        need(module, "onnx", "this command")


def publish(console: Console, place: Path, task: Task, before: tuple[str, nn.Module], after: tuple[str, Any]) -> None:
    """Writes model.onnx and model.luthier into a folder, and prints both networks' scores.

    Args:
        console: where to.
        place: the folder.
        task: whose validation data judge.
        before: name and network.
        after: name and network, or a result that holds one.
    """
    from luthier.export import export_onnx, save
    from luthier.train import validate

    made = after[1]
    console.print(str(export_onnx(made, place / "model.onnx", task.example())), highlight=False)
    save(made, place / "model.luthier", inputs=task.example())
    for name, network in (before, after):
        scores = ", ".join(f"{k} {v:.4f}" for k, v in validate(network, task).items())
        console.print(f"{name}: {scores}", highlight=False)
    console.print(f"files: {place}", highlight=False)


def as_mapping(texts: Sequence[str]) -> dict[str, float]:
    """Reads ``name=number``, several times.

    Raises:
        UsageError: one that cannot be read, or a name twice.
    """
    out: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            raise UsageError(
                f"{text!r} cannot be read", expected="NAME=NUMBER, such as latency=0.5 or kl=0.9", got=repr(text)
            ) from None
        if name in out:
            raise UsageError(f"{name!r} is given twice", got=f"{out[name]:g} and {value:g}")
        out[name] = value
    return out
