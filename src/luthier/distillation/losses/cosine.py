"""Angle between outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from luthier.distillation.losses import Sees
from luthier.errors import UsageError


@dataclass(frozen=True)
class Cosine:
    """One minus the cosine between the student's and the teacher's outputs, over dimension 1.

    When it helps: embeddings, whose length means nothing. When it hurts: classification, where it means certainty.

    Source:
        Sanh et al., "DistilBERT", 2019, section 3 (there on hidden states).
    """

    sees: ClassVar[Sees] = "outputs"

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See :class:`luthier.distillation.losses.DistillationLoss`."""
        if student.ndim < 2:
            raise UsageError("cosines are of vectors", expected="shape (n, numbers, ...)", got=tuple(student.shape))
        return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()


METHOD = Cosine
