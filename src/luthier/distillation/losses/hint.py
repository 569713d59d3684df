"""Hints: the student's features imitate the teacher's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from luthier.distillation.losses import Sees
from luthier.errors import UsageError, unknown


def read_projection(name: str) -> str:
    """When a map over the student's channels is learned along: "auto" (where widths differ), "always" or "never".

    Raises:
        UsageError: another word.
    """
    known = ("auto", "always", "never")
    if name not in known:
        raise unknown("projection", str(name), known)
    return name


@dataclass(frozen=True)
class Hint:
    """Mean squared difference of features, where widths differ after a linear map that is learned along.

    mean (f_s W - f_t)^2, with W a matrix over channels that is trained with the student and then dropped; or the
    identity.

    When it helps: students much smaller than their teacher, first epochs. When it hurts: late, or with large weight:
    it asks for features that the student cannot have.

    Args:
        projection: W is learned "auto" (where widths differ), "always", or "never".

    Raises:
        UsageError: another word.

    Source:
        Romero et al., "FitNets: hints for thin deep nets", ICLR 2015, equation 3.
    """

    projection: str = "auto"
    sees: ClassVar[Sees] = "features"

    def __post_init__(self) -> None:
        read_projection(self.projection)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See :class:`luthier.distillation.losses.DistillationLoss`."""
        if student.shape != teacher.shape:
            raise UsageError(
                "the hint's features differ in shape", expected=tuple(teacher.shape), got=tuple(student.shape)
            )
        return F.mse_loss(student, teacher)


METHOD = Hint
