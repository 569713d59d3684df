"""Optimal brain damage: the curvature of the loss at each weight."""

from __future__ import annotations

from torch import Tensor

from luthier.importance import Evidence, Needs


class Obd:
    """Optimal brain damage: the curvature of the loss at each weight.

    Formula:
        h w^2 / 2, h the weight's entry on the Hessian's diagonal; summed over all weights that go with an index

    Cost:
        a second backward pass a batch (h is estimated without bias with random signs)

    Source:
        LeCun, Denker and Solla, "Optimal brain damage", NeurIPS 1990, equation 5.
    """

    needs: Needs = "curvature"

    def elements(self, evidence: Evidence) -> Tensor:
        """A score per weight."""
        return 0.5 * evidence.bend * evidence.weight**2

    def combine(self, total: Tensor) -> Tensor:
        """From the sum over an index's weights to its score."""
        return total


METHOD = Obd
