"""Relational knowledge distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from luthier.distillation.losses import Sees


@dataclass(frozen=True)
class RKD:
    """How examples of a batch lie to each other: distances between pairs, angles in triples; widths may differ.

    Huber loss between d_ij / mean(d) of student and teacher, plus ``angle`` times that between the cosines of the
    angles at each example towards two others.

    When it helps: metric learning, embeddings. When it hurts: small batches; its cost grows with their cube.

    Args:
        temperature: not used.
        distance: weight of the distances.
        angle: weight of the angles.

    Source:
        Park et al., "Relational knowledge distillation", CVPR 2019, equations 4 to 8.
    """

    temperature: float = 1.0
    distance: float = 1.0
    angle: float = 2.0
    sees: ClassVar[Sees] = "features"

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See :class:`luthier.distillation.losses.DistillationLoss`; features are flattened to (n, d)."""
        s, t = student.flatten(1), teacher.flatten(1)
        by_distance = F.smooth_l1_loss(_distances(s), _distances(t))
        by_angle = F.smooth_l1_loss(_angles(s), _angles(t))
        return self.distance * by_distance + self.angle * by_angle


def _distances(x: Tensor) -> Tensor:
    """(n, d) -> (n, n), divided by the mean over different pairs."""
    square = (x[:, None] - x[None]).square().sum(-1)
    gap = torch.where(square > 0, square.clamp_min(1e-12).sqrt(), torch.zeros_like(square))
    other = gap[gap > 0]
    return gap / other.mean() if len(other) else gap


def _angles(x: Tensor) -> Tensor:
    """(n, d) -> (n, n, n): entry (j, i, k) is the cosine of the angle at j between i and k."""
    towards = F.normalize(x[None] - x[:, None], dim=-1, eps=1e-6)
    return towards @ towards.mT


METHOD = RKD
