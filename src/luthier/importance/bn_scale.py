"""Scale of the normalisation that follows: a channel scaled by nearly nothing says nothing."""

from __future__ import annotations

from torch import Tensor

from luthier.importance import Evidence, Needs


class BatchNormScale:
    """Scale of the normalisation that follows: a channel scaled by nearly nothing says nothing.

    Formula:
        |gamma|, summed over the normalisations that scale the index

    Source:
        Liu et al., "Learning efficient convolutional networks through network slimming", ICCV 2017.
    """

    needs: Needs = "nothing"

    def elements(self, evidence: Evidence) -> Tensor:
        """A score per weight."""
        return evidence.weight.abs() * float(evidence.norm)

    def combine(self, total: Tensor) -> Tensor:
        """From the sum over an index's weights to its score."""
        return total


METHOD = BatchNormScale
