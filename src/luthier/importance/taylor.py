"""Gradient x weight: the first-order change of the loss when it goes."""

from __future__ import annotations

from torch import Tensor

from luthier.importance import Evidence, Needs


class Taylor:
    """Gradient x weight: the first-order change of the loss when it goes.

    Formula:
        sum of |w dL/dw|

    Source:
        Molchanov et al., "Importance estimation for neural network pruning", CVPR 2019.
    """

    needs: Needs = "gradients"

    def elements(self, evidence: Evidence) -> Tensor:
        """A score per weight."""
        return (evidence.weight * evidence.gradient).abs()

    def combine(self, total: Tensor) -> Tensor:
        """From the sum over an index's weights to its score."""
        return total


METHOD = Taylor
