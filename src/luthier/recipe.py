"""Recipes: how to train, checked once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from luthier.errors import UsageError, unknown

_OPTIMIZERS = ("sgd", "adam", "adamw")
_SCHEDULES = ("cosine", "linear", "constant", "step", "exponential")


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Args:
        epochs: passes over the training data.
        optimizer: "sgd", "adam" or "adamw".
        lr: highest learning rate.
        weight_decay: decoupled for adamw, else added to the gradient.
        momentum: of sgd (with Nesterov's form where positive).
        schedule: "cosine" or "linear" down to zero, "exponential" down to a hundredth, "step" (a tenth from half of
            the steps on, a hundredth from three quarters), "constant", or a function of the share of steps done,
            from 0 to 1, that gives a factor.
        warmup: share of all steps over which the rate rises from zero.
        clip: largest norm of the gradient; None for no limit.
        accumulate: batches per optimiser step, which takes the mean over their examples; an epoch's last step may have
            fewer.
        patience: epochs without a better validation score before training ends; None for never.
        keep: "best" restores the epoch that validated best, "last" keeps the end.
        precision: "auto" (on a GPU bfloat16 where it has that, else float16; the parameters' own on a CPU),
            "float32", "bfloat16" or "float16" (with a scaled loss). With a Fabric, the Fabric's counts.
        seed: of shuffling and dropout, in PyTorch's, NumPy's and Python's global streams.

    Raises:
        UsageError: a value out of range or an unknown name.
    """

    epochs: int = 10
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.01
    momentum: float = 0.9
    schedule: str | Callable[[float], float] = "cosine"
    warmup: float = 0.05
    clip: float | None = 5.0
    accumulate: int = 1
    patience: int | None = None
    keep: str = "best"
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("optimizer", self.optimizer, _OPTIMIZERS),
            ("schedule", self.schedule, _SCHEDULES),
            ("keep", self.keep, ("best", "last")),
            ("precision", self.precision, ("auto", "float32", "bfloat16", "float16")),
        ):
            if value not in known and not (name == "schedule" and callable(value)):
                raise unknown(name, str(value), known)
        for name, low in (("epochs", 0), ("accumulate", 1), ("patience", 1)):
            whole = getattr(self, name)
            if not (whole is None and name == "patience") and not (type(whole) is int and whole >= low):
                raise UsageError(f"{name!r} is out of range", expected=f"a whole number >= {low}", got=repr(whole))
        for name, most in (("lr", math.inf), ("weight_decay", math.inf), ("momentum", 1.0), ("warmup", 1.0)):
            _check_number(name, getattr(self, name), most)
        if self.clip is not None:
            _check_number("clip", self.clip, math.inf)
            if self.clip == 0:
                raise UsageError("'clip' is out of range", expected="a number > 0, or None for no limit", got=self.clip)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Recipe:
        """Reads settings given by name.

        Raises:
            UsageError: an unknown name; says which was meant.
        """
        known = [f.name for f in fields(cls)]
        for name in settings:
            if name not in known:
                raise unknown("training setting", name, known)
        return cls(**settings)


def _check_number(name: str, value: Any, most: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 <= value <= most:
        bound = "a finite number >= 0" if most == math.inf else f"a number from 0 to {most:g}"
        raise UsageError(f"{name!r} is out of range", expected=bound, got=repr(value))


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate's factor at a step: a linear rise, then the schedule.

    Example:
        >>> [round(rate(Recipe(warmup=0.0), s, 4), 3) for s in (0, 2, 4)]
        [1.0, 0.5, 0.0]

    Source:
        cosine: Loshchilov and Hutter, "SGDR", 2017, equation 5, without restarts.
    """
    rise = round(recipe.warmup * steps)
    if step < rise:
        return (step + 1) / rise
    done = min((step - rise) / max(steps - rise, 1), 1.0)
    return recipe.schedule(done) if callable(recipe.schedule) else _CURVES[recipe.schedule](done)


_CURVES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    "linear": lambda done: 1.0 - done,
    "constant": lambda done: 1.0,
    "step": lambda done: 0.1 ** ((done >= 0.5) + (done >= 0.75)),
    "exponential": lambda done: 0.01**done,
}
