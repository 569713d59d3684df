"""The settings of a compression run, checked once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import CodeType
from typing import Any

from torch import nn

from luthier import allocate, importance
from luthier.distillation.cache import is_fixed
from luthier.errors import UsageError, unknown
from luthier.model.contents import as_bytes
from luthier.recipe import Recipe
from luthier.task import Task


@dataclass(frozen=True)
class Settings:
    """How to search for smaller networks.

    Args:
        batch_size: of the latency measurement.
        recipe: how to train the dense network first (see :class:`luthier.recipe.Recipe`); None: it is trained.
        epochs: fewest and most epochs of recovery in a trial.
        max_ratio: largest share removed from a stage.
        multiple: widths are kept at multiples of this (runtimes dislike odd widths); "auto": what this machine's likes.
        criterion: what is unimportant (see ``luthier methods``); "auto": the search chooses, starting from the one that
            does best in bench/prune.
        allocate: how a stage's share is spread over its widths; "sensitivity" goes by a map measured first.
        algorithm: of the search, see ``luthier methods``.
        seed: of everything random.
        progress: whether to show what goes on.
        command: the command that reproduces the run, for the report.
    """

    batch_size: int = 32
    recipe: Mapping[str, Any] | None = None
    epochs: tuple[int, int] = (2, 8)
    max_ratio: float = 0.9
    multiple: int | str = 8
    criterion: str = "auto"
    allocate: str = "sensitivity"
    algorithm: str = "auto"
    seed: int = 0
    progress: bool = True
    command: str | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "multiple"):
            value = getattr(self, name)
            if (not isinstance(value, int) or value < 1) and (name, value) != ("multiple", "auto"):
                expected = "a whole number >= 1" + (" or 'auto'" if name == "multiple" else "")
                raise UsageError(f"{name!r} is out of range", expected=expected, got=repr(value))
        if not isinstance(self.max_ratio, float) or not 0 < self.max_ratio < 1:
            raise UsageError("'max_ratio' is out of range", expected="0 < max_ratio < 1", got=repr(self.max_ratio))
        pair = isinstance(self.epochs, tuple | list) and [type(e) for e in self.epochs] == [int, int]
        if not pair or not 1 <= self.epochs[0] <= self.epochs[1]:
            expected = "(fewest, most), 1 <= fewest <= most"
            raise UsageError("'epochs' is out of range", expected=expected, got=repr(self.epochs))
        importance.get(self.criterion)
        allocate.get(self.allocate)
        if self.recipe is not None:
            Recipe.of(self.recipe)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Settings:
        """Reads settings given by name.

        Raises:
            UsageError: an unknown name; says which was meant.
        """
        known = [f.name for f in fields(cls)]
        for name in settings:
            if name not in known:
                raise unknown("setting", name, known)
        return cls(**settings)


def fingerprint(model: nn.Module, task: Task, budget: Mapping[str, float], settings: Settings) -> dict[str, Any]:
    """What makes two runs the same run: a folder that holds one is not given to another.

    Trials, time and workers may differ: the same run goes on.
    """
    shapes = [(name, tuple(getattr(value, "shape", ()))) for name, value in model.state_dict().items()]
    weights = list(model.state_dict().values()) if settings.recipe is None else []
    return {
        "model": digest(f"{shapes} {model}"),
        "weights": digest(*weights),
        "loss": task.loss if isinstance(task.loss, str) else _source(task.loss),
        "metrics": [f"{m.name} {_source(m.function)}" for m in task.scores],
        "targets": task.targets,
        "class_dim": task.class_dim,
        "data": {part: _data(task, part) for part in ("train", "valid", "test") if getattr(task, part) is not None},
        "budget": dict(budget),
        "recipe": dict(settings.recipe) if settings.recipe is not None else None,
        "batch_size": settings.batch_size,
        "epochs": list(settings.epochs),
        "max_ratio": settings.max_ratio,
        "multiple": settings.multiple,
        "criterion": settings.criterion,
        "allocate": settings.allocate,
        "seed": settings.seed,
    }


def digest(*parts: Any) -> str:
    """16 letters that stand for texts, tensors and what else a state holds."""
    return hashlib.sha256(b"".join(map(as_bytes, parts))).hexdigest()[:16]


def _source(function: Any) -> str:
    """A function by its code, so that another one of the same name is another one; an object by its values."""
    if is_dataclass(function) or isinstance(function, nn.Module):
        return repr(function)
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return digest(_code(code)) if code else type(function).__name__


def _code(code: CodeType) -> str:
    """What a code object does, without the addresses in its printed form."""
    consts = [_code(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {consts}"


def _constant(value: Any) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _data(task: Task, part: str) -> str:
    """What a part holds; where it is not tensors in memory, how many batches it has."""
    loader: Any = task.loader(part)
    return digest(*loader.dataset.tensors) if is_fixed(loader) else f"{task.count(part)} batches"
