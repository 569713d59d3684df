"""Distillation losses. One file is one loss; each takes plain tensors."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from luthier import discover


class DistillationLoss(Protocol):
    """How far a student's outputs are from its teacher's."""

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            student: outputs of shape (n, classes, ...).
            teacher: the teacher's, of the same shape.

        Returns:
            a scalar; 0 where both are equal.
        """
        ...


def names() -> list[str]:
    """The losses there are."""
    return discover.names(__name__)


def get(name: str, temperature: float) -> DistillationLoss:
    """The loss of that name.

    Raises:
        UsageError: there is none.
    """
    made: DistillationLoss = discover.load(__name__, name, "distillation loss")(temperature=temperature)
    return made


def __getattr__(name: str) -> Any:
    return discover.attribute(__name__, name)
