"""Chance: the baseline that every criterion must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from luthier.importance import Evidence, Needs


class Random:
    """Chance: the baseline that every criterion must beat.

    Formula:
        a uniform draw per weight, from the stream named by the seed and the parameter
    """

    needs: Needs = "nothing"

    def elements(self, evidence: Evidence) -> Tensor:
        """A score per weight."""
        drawn = evidence.key.generator(evidence.name).random(tuple(evidence.weight.shape))
        return torch.as_tensor(drawn)

    def combine(self, total: Tensor) -> Tensor:
        """From the sum over an index's weights to its score."""
        return total


METHOD = Random
