"""Gradient x weight: the first-order change of the loss when it goes."""

from __future__ import annotations

from torch import Tensor

from luthier.importance import Evidence, Needs


class Taylor:
    """Gradient x weight: the first-order change of the loss when it goes.

    Formula:
        |w dL/dw| for a weight; |sum of w dL/dw| over all weights that go with an index

    Source:
        Molchanov et al., "Importance estimation for neural network pruning", CVPR 2019.
    """

    needs: Needs = "gradients"

    def elements(self, evidence: Evidence) -> Tensor:
        """A score per weight."""
        return self.terms(evidence).abs()

    def terms(self, evidence: Evidence) -> Tensor:
        """The signed change, which adds up over the weights that go together."""
        return evidence.weight * evidence.gradient

    def combine(self, total: Tensor) -> Tensor:
        """From the sum over an index's weights to its score."""
        return total.abs()


METHOD = Taylor
