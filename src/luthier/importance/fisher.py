"""Diagonal Fisher information: the expected second-order change of the loss when it goes."""

from __future__ import annotations

from torch import Tensor

from luthier.importance import Evidence, Needs


class Fisher:
    """Diagonal Fisher information: the expected second-order change of the loss when it goes.

    Formula:
        sum of w^2 E[g^2] / 2

    Source:
        Theis et al., "Faster gaze prediction with dense networks and Fisher pruning", 2018.
    """

    needs: Needs = "gradients"

    def elements(self, evidence: Evidence) -> Tensor:
        """A score per weight."""
        return 0.5 * evidence.weight**2 * evidence.square

    def combine(self, total: Tensor) -> Tensor:
        """From the sum over an index's weights to its score."""
        return total


METHOD = Fisher
