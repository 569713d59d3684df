"""Gradient and curvature: the second-order change of the loss when it goes."""

from __future__ import annotations

from torch import Tensor

from luthier.importance import Evidence, Needs


class Taylor2:
    """Gradient and curvature: the second-order change of the loss when it goes.

    Formula:
        |-g w + h w^2 / 2| for a weight, g its gradient, h its entry on the Hessian's diagonal; |-s + c / 2| for a
        unit, s and c the first and second derivative of the loss by a gate on all its weights

    Cost:
        a second backward pass a batch (h and c are estimated with random signs; c is exact up to 32 units)

    Source:
        Molchanov et al., "Importance estimation for neural network pruning", CVPR 2019, equation 7 (there the
        square; here with the Hessian's diagonal, which is the change when nothing else goes).
    """

    needs: Needs = "curvature"
    neurons_need: Needs = "gates"

    def elements(self, evidence: Evidence) -> Tensor:
        """A score per weight."""
        return (0.5 * evidence.bend * evidence.weight**2 - evidence.gradient * evidence.weight).abs()

    def gates(self, slope: Tensor, curvature: Tensor) -> Tensor:
        """From a unit's slope and curvature to its score."""
        return (0.5 * curvature - slope).abs()


METHOD = Taylor2
