"""Magnitude: the sum of absolute values."""

from __future__ import annotations

from torch import Tensor

from luthier.importance import Evidence, Needs


class L1:
    """Magnitude: the sum of absolute values.

    Formula:
        sum of |w| over all weights that go with the index

    Source:
        Li et al., "Pruning filters for efficient ConvNets", ICLR 2017.
    """

    needs: Needs = "nothing"

    def elements(self, evidence: Evidence) -> Tensor:
        """A score per weight."""
        return evidence.weight.abs()

    def combine(self, total: Tensor) -> Tensor:
        """From the sum over an index's weights to its score."""
        return total


METHOD = L1
