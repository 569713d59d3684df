"""Kullback-Leibler divergence of softened outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from luthier.distillation.losses import Sees
from luthier.errors import UsageError


@dataclass(frozen=True)
class KL:
    """Divergence of the student's softened class probabilities from the teacher's, times T^2.

    T^2 * mean over examples of sum_c p_c log(p_c / q_c), with p = softmax(teacher / T), q = softmax(student / T).
    The factor keeps the gradient's size the same for every T.

    Args:
        temperature: T > 0; higher shows more of what the teacher thinks of the wrong classes.

    Raises:
        UsageError: T is not positive, or outputs of fewer than two classes, which always agree.

    Source:
        Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, section 2.
    """

    temperature: float = 4.0
    sees: ClassVar[Sees] = "outputs"

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise UsageError("the temperature is out of range", expected="temperature > 0", got=self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See :class:`luthier.distillation.losses.DistillationLoss`."""
        if student.ndim < 2 or student.shape[1] < 2:
            raise UsageError(
                "KL compares classes, and these outputs are none",
                expected="shape (n, classes, ...), with two classes or more",
                got=tuple(student.shape),
                fix="a task with loss='bce' for yes/no questions; the loss 'mse' for numbers",
            )
        q = F.log_softmax(student / self.temperature, dim=1)
        p = F.log_softmax(teacher / self.temperature, dim=1)
        parts = F.kl_div(q, p, reduction="none", log_target=True).masked_fill(p.isneginf(), 0.0)  # 0 log 0 = 0
        return parts.sum(1).mean() * self.temperature**2


METHOD = KL
