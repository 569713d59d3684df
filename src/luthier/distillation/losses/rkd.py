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

    Both follow from the examples' inner products, so that features of any size cost one matrix product.

    When it helps: metric learning, embeddings. When it hurts: small batches; its memory grows with their cube.

    Args:
        distance: weight of the distances.
        angle: weight of the angles.

    Source:
        Park et al., "Relational knowledge distillation", CVPR 2019, equations 4 to 8.
    """

    distance: float = 1.0
    angle: float = 2.0
    sees: ClassVar[Sees] = "features"

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See :class:`luthier.distillation.losses.DistillationLoss`; features are flattened to (n, d)."""
        s, t = _inner(student.flatten(1)), _inner(teacher.flatten(1))
        by_distance = F.smooth_l1_loss(_distances(s), _distances(t))
        by_angle = F.smooth_l1_loss(_angles(s), _angles(t))
        return self.distance * by_distance + self.angle * by_angle


def _inner(x: Tensor) -> Tensor:
    """Inner products of examples moved to their mean, (n, d) -> (n, n): all that distances and angles need."""
    centred = x - x.mean(0)
    return centred @ centred.mT


def _squares(inner: Tensor) -> Tensor:
    """Squared distances, (n, n); exactly 0 between examples that agree up to rounding."""
    length = inner.diagonal()
    square = length[:, None] + length[None] - 2 * inner
    noise = 8 * torch.finfo(inner.dtype).eps * length.mean().detach()
    return torch.where(square > noise, square, torch.zeros_like(square))


def _root(square: Tensor) -> Tensor:
    """The root, with gradient 0 at 0."""
    return torch.where(square > 0, square.clamp_min(torch.finfo(square.dtype).tiny).sqrt(), torch.zeros_like(square))


def _distances(inner: Tensor) -> Tensor:
    """(n, n) -> (n, n), divided by the mean over different pairs."""
    gap = _root(_squares(inner))
    other = gap[gap > 0]
    return gap / other.mean() if len(other) else gap


def _angles(inner: Tensor) -> Tensor:
    """(n, n) -> (n, n, n): entry (j, i, k) is the cosine of the angle at j between i and k; 0 where i or k is j."""
    own = inner.diagonal()[:, None, None]
    product = inner[None] - inner[:, :, None] - inner[:, None, :] + own  # (x_i - x_j) . (x_k - x_j)
    square = _squares(inner)
    inverse = torch.where(
        square > 0, square.clamp_min(torch.finfo(square.dtype).tiny).rsqrt(), torch.zeros_like(square)
    )
    return product * inverse[:, :, None] * inverse[:, None, :]


METHOD = RKD
