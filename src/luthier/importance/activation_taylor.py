"""Activation x gradient: the first-order change of each example's loss when it goes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from luthier.importance import Needs


class ActivationTaylor:
    """Activation x gradient: the first-order change of each example's loss when it goes.

    Formula:
        mean over examples of |sum over positions of a dL/da|, a the input of the layer that sums over the index

    Cost:
        a forward and a backward pass a batch

    Source:
        Molchanov et al., "Pruning convolutional neural networks for resource efficient inference", ICLR 2017,
        equation 8 (there the mean over positions).
    """

    needs: Needs = "activation_gradients"

    def examples(self, slopes: Tensor) -> Sequence[Tensor]:
        """What is averaged over examples, from the derivatives by a gate on each unit, [examples, size]."""
        return [slopes.abs()]

    def combine(self, means: Tensor) -> Tensor:
        """From the means, one row each, to the scores."""
        return means[0]


METHOD = ActivationTaylor
