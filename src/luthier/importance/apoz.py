"""Average share of zeros: units that are mostly silent go."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from luthier.importance import Needs


class Apoz:
    """Average share of zeros: units that are mostly silent go.

    Formula:
        share of activations that are not zero, over the data and positions

    Notes:
        Behind GELU, a sigmoid, attention or a recurrent layer no activation is zero, and every score is 1: refused
        where that is so in every layer; where it is so in some, a warning says that their units go by position.

    Source:
        Hu et al., "Network trimming", 2016.
    """

    needs: Needs = "activations"

    def moments(self, x: Tensor) -> Sequence[Tensor]:
        """What is averaged over the data."""
        return [(x != 0).to(x.dtype)]

    def combine(self, means: Tensor) -> Tensor:
        """From the means, one row each, to the scores."""
        return means[0]


METHOD = Apoz
