"""Movement: weights that training pushes away from zero stay, those that it pulls towards zero go."""

from __future__ import annotations

from torch import Tensor

from luthier.importance import Evidence, Needs


class Movement:
    """Movement: weights that training pushes away from zero stay, those that it pulls towards zero go.

    Formula:
        -sum of w dL/dw (a step of gradient descent changes |w| in this direction)

    Source:
        Sanh et al., "Movement pruning", NeurIPS 2020.
    """

    needs: Needs = "gradients"

    def elements(self, evidence: Evidence) -> Tensor:
        """A score per weight."""
        return -evidence.weight * evidence.gradient

    def combine(self, total: Tensor) -> Tensor:
        """From the sum over an index's weights to its score."""
        return total


METHOD = Movement
