"""Decoupled knowledge distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from luthier.batch import IGNORED
from luthier.distillation.losses import Sees
from luthier.errors import UsageError
from luthier.fitting import as_classes
from luthier.sequences import at, nothing


@dataclass(frozen=True)
class DKD:
    """KL split in two: how sure of the true class, and how the other classes compare among themselves.

    T^2 (alpha KL(b_t || b_s) + beta KL(p'_t || p'_s)), with b the pair (true class, rest) and p' the softmax over
    the other classes alone. Plain KL weights the second part by the teacher's doubt, so that a sure teacher
    teaches little; here it counts in full.

    When it helps: teachers that are nearly always sure. When it hurts: two classes (the second part vanishes).

    Args:
        temperature: T > 0.
        alpha: weight of the first part.
        beta: weight of the second.

    Raises:
        UsageError: T is not positive.

    Source:
        Zhao et al., "Decoupled knowledge distillation", CVPR 2022, equation 7.
    """

    temperature: float = 4.0
    alpha: float = 1.0
    beta: float = 8.0
    sees: ClassVar[Sees] = "targets"

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise UsageError("the temperature is out of range", expected="temperature > 0", got=self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Tensor:
        """See :class:`luthier.distillation.losses.DistillationLoss`; target: true classes, shape (n, ...).

        Every position counts as an example; none does whose class is -100.
        """
        if target is None or target.is_floating_point():
            raise UsageError(
                "DKD needs the true classes",
                expected="class numbers for outputs of shape (n, classes, ...)",
                got="none" if target is None else f"{target.dtype} of shape {tuple(target.shape)}",
            )
        index = as_classes(student, target)
        counted = index != IGNORED
        if not bool(counted.any()):
            return nothing(student)
        student, teacher = at(student, counted), at(teacher, counted)
        true = F.one_hot(index[counted], student.shape[1]).bool()
        pairs, others = zip(*(_split(x / self.temperature, true) for x in (student, teacher)), strict=True)
        target_part = F.kl_div(pairs[0], pairs[1], reduction="batchmean", log_target=True)
        other_part = F.kl_div(others[0], others[1], reduction="batchmean", log_target=True)
        return (self.alpha * target_part + self.beta * other_part) * self.temperature**2


def _split(logits: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities of (true class, rest), shape (n, 2), and of the other classes alone, shape (n, c - 1)."""
    rest = logits[~true].view(len(logits), -1)
    pair = torch.stack([logits[true], rest.logsumexp(1)], 1)
    return F.log_softmax(pair, 1), F.log_softmax(rest, 1)


METHOD = DKD
