"""Squared difference of raw outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from luthier.distillation.losses import Sees


@dataclass(frozen=True)
class MSE:
    """Mean squared difference of the logits: the limit of KL for high temperatures; the choice for regression.

    Source:
        Ba and Caruana, "Do deep nets really need to be deep?", 2014, equation 1.
    """

    sees: ClassVar[Sees] = "outputs"

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See :class:`luthier.distillation.losses.DistillationLoss`."""
        return F.mse_loss(student, teacher)


METHOD = MSE
