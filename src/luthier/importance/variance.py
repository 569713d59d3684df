"""Variance of the activation: units that hardly change go."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from luthier.importance import Needs


class Variance:
    """Variance of the activation: units that hardly change go.

    Formula:
        mean of a^2 minus the square of the mean of a, over the data and positions

    Source:
        Luo and Wu, "An entropy-based pruning method", 2017 (variance in place of entropy).
    """

    needs: Needs = "activations"

    def moments(self, x: Tensor) -> Sequence[Tensor]:
        """What is averaged over the data."""
        return [x, x.double().square()]

    def combine(self, means: Tensor) -> Tensor:
        """From the means, one row each, to the scores."""
        return means[1] - means[0].square()


METHOD = Variance
