"""Attention transfer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from luthier.distillation.losses import Sees
from luthier.errors import UsageError


@dataclass(frozen=True)
class Attention:
    """Distance between maps of where activations are large; widths may differ.

    || Q_s / ||Q_s|| - Q_t / ||Q_t|| ||^2 averaged over the batch and the positions' number, with Q the mean over
    channels of squared activations, flattened over positions.

    When it helps: convolutional networks cut hard. When it hurts: features without positions (refused).

    Source:
        Zagoruyko and Komodakis, "Paying more attention to attention", ICLR 2017, equation 2 with p = 2.
    """

    sees: ClassVar[Sees] = "features"

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See :class:`luthier.distillation.losses.DistillationLoss`; features of shape (n, channels, positions...)."""
        if student.ndim < 3 or student.shape[2:] != teacher.shape[2:]:
            raise UsageError(
                "attention transfer needs features over the same positions",
                expected=f"(n, channels, {', '.join(map(str, teacher.shape[2:])) or 'positions'})",
                got=tuple(student.shape),
            )
        return (_map(student) - _map(teacher)).square().mean()


def _map(features: Tensor) -> Tensor:
    """(n, channels, ...) -> (n, positions), of length 1."""
    return F.normalize(features.square().mean(1).flatten(1), dim=1)


METHOD = Attention
