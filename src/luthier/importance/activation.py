"""Mean absolute activation, where it is consumed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from luthier.importance import Needs


class Activation:
    """Mean absolute activation, where it is consumed.

    Formula:
        mean of |a| over the data and positions, a the input of the layer that sums over the index

    Source:
        Polyak and Wolf, "Channel-level acceleration of deep face representations", IEEE Access 2015.
    """

    needs: Needs = "activations"

    def moments(self, x: Tensor) -> Sequence[Tensor]:
        """What is averaged over the data."""
        return [x.abs()]

    def combine(self, means: Tensor) -> Tensor:
        """From the means, one row each, to the scores."""
        return means[0]


METHOD = Activation
