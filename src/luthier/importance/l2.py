"""Magnitude: the Euclidean norm."""

from __future__ import annotations

from torch import Tensor

from luthier.importance import Evidence, Needs


class L2:
    """Magnitude: the Euclidean norm.

    Formula:
        sqrt(sum of w^2 over all weights that go with the index)

    Source:
        He et al., "Soft filter pruning", IJCAI 2018.
    """

    needs: Needs = "nothing"

    def elements(self, evidence: Evidence) -> Tensor:
        """A score per weight."""
        return evidence.weight.abs()

    def terms(self, evidence: Evidence) -> Tensor:
        """The square, which adds up over the weights that go together."""
        return evidence.weight.square()

    def combine(self, total: Tensor) -> Tensor:
        """From the sum over an index's weights to its score."""
        return total.sqrt()


METHOD = L2
