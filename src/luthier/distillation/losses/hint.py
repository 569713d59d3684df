"""Hints: the student's features imitate the teacher's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from luthier.distillation.losses import Sees
from luthier.errors import UsageError


@dataclass(frozen=True)
class Hint:
    """Mean squared difference of features; where widths differ, after a linear map that is learned along.

    When it helps: students much smaller than their teacher, first epochs. When it hurts: late, or with large weight:
    it asks for features that the student cannot have.


    Source:
        Romero et al., "FitNets: hints for thin deep nets", ICLR 2015, equation 3.
    """

    sees: ClassVar[Sees] = "features"
    maps: ClassVar[bool] = True  # differing widths are mapped by :class:`luthier.distillation.taps.Maps`

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See :class:`luthier.distillation.losses.DistillationLoss`."""
        if student.shape != teacher.shape:
            raise UsageError(
                "the hint's features differ in shape", expected=tuple(teacher.shape), got=tuple(student.shape)
            )
        return F.mse_loss(student, teacher)


METHOD = Hint
