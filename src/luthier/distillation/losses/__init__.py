"""Distillation losses. One file is one loss; each takes plain tensors.

What a loss compares is said by its ``sees``: "outputs" (of student and teacher), "targets" (these and the true
classes), or "features" (what some module gives, for each tapped pair of modules).
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal, Protocol

from torch import Tensor

from luthier import discover

Sees = Literal["outputs", "targets", "features"]


class DistillationLoss(Protocol):
    """How far a student is from its teacher."""

    @property
    def sees(self) -> Sees:
        """What it compares."""

    def __call__(self, student: Tensor, teacher: Tensor, /) -> Tensor:
        """The loss of a batch; one that sees targets takes them as a third argument.

        Args:
            student: outputs of shape (n, classes, ...), or features of shape (n, channels, ...).
            teacher: the teacher's.

        Returns:
            a scalar; 0 where both are equal, but for :class:`CRD`, which contrasts examples with each other.
        """
        ...


def names() -> list[str]:
    """The losses there are."""
    return discover.names(__name__)


def get(name: str, temperature: float) -> DistillationLoss:
    """The loss of that name.

    Args:
        name: see :func:`names`.
        temperature: for those that soften outputs; the others have none.

    Raises:
        UsageError: there is none.
    """
    kind = discover.load(__name__, name, "distillation loss")
    softens = any(field.name == "temperature" for field in fields(kind))
    made: DistillationLoss = kind(temperature=temperature) if softens else kind()
    return made


def __getattr__(name: str) -> Any:
    return discover.attribute(__name__, name)
