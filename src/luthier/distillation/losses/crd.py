"""Contrastive representation distillation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from luthier.distillation.losses import Sees
from luthier.distillation.losses.hint import read_projection
from luthier.errors import UsageError


@dataclass(frozen=True)
class CRD:
    """Each example's embedding is to be nearer to the teacher's of it than to the teacher's of the batch's others.

    -log softmax_j(cos(s_i, t_j) / tau) at j = i, and the same with i and j exchanged, both averaged over the batch.
    Where widths differ, s goes through a linear map that is learned along. The others of the batch stand for the
    paper's memory of 16,384 examples.

    It is positive always: at student = teacher it is what the teacher's own embeddings give, which is not 0; near 0
    only where examples are far from each other.

    When it helps: the layer before the head (``taps``), batches of 64 and more. When it hurts: small batches.

    Args:
        sharpness: tau > 0.
        projection: of the student's embedding: "auto" (where widths differ), "always", or "never".

    Raises:
        UsageError: tau is not positive, or another word.

    Source:
        Tian, Krishnan and Isola, "Contrastive representation distillation", ICLR 2020, equation 10, in the form of
        van den Oord et al., "Contrastive predictive coding", 2018, equation 4.
    """

    sharpness: float = 0.1
    projection: str = "auto"
    sees: ClassVar[Sees] = "features"

    def __post_init__(self) -> None:
        if not 0 < self.sharpness < float("inf"):
            raise UsageError("the sharpness is out of range", expected="sharpness > 0", got=self.sharpness)
        read_projection(self.projection)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See :class:`luthier.distillation.losses.DistillationLoss`; features are flattened to (n, d)."""
        s, t = student.flatten(1), teacher.flatten(1).to(student.dtype)
        if s.shape != t.shape:
            raise UsageError("the embeddings differ in shape", expected=tuple(t.shape), got=tuple(s.shape))
        alike = F.normalize(s, dim=1) @ F.normalize(t, dim=1).mT / self.sharpness  # (n, n)
        own = torch.arange(len(s), device=s.device)
        return (F.cross_entropy(alike, own) + F.cross_entropy(alike.mT, own)) / 2


METHOD = CRD
