"""Mean absolute gradient of the loss by the activation: how strongly the loss feels it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from luthier.importance import Needs


class ActivationGradient:
    """Mean absolute gradient of the loss by the activation: how strongly the loss feels it.

    Formula:
        mean of |dL/da| over examples and positions, a the input of the layer that sums over the index

    Cost:
        a forward and a backward pass a batch

    Source:
        Liu and Wu, "Channel pruning based on mean gradient for accelerating convolutional neural networks", Signal
        Processing 2019.
    """

    needs: Needs = "activation_gradients"

    def moments(self, x: Tensor, gradient: Tensor) -> Sequence[Tensor]:
        """What is averaged over the data."""
        return [gradient.abs()]

    def combine(self, means: Tensor) -> Tensor:
        """From the means, one row each, to the scores."""
        return means[0]


METHOD = ActivationGradient
