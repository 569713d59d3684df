"""Diagonal Fisher information: the expected second-order change of the loss when it goes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from luthier.importance import Evidence, Needs


class Fisher:
    """Diagonal Fisher information: the expected second-order change of the loss when it goes.

    Formula:
        w^2 E[g^2] / 2 for a weight, g an example's own gradient; E[s^2] / 2 for a unit, s the derivative of an
        example's loss by a gate on the unit's activations

    Cost:
        for weights a backward pass an example; for units a forward and a backward pass a batch

    Source:
        Theis et al., "Faster gaze prediction with dense networks and Fisher pruning", 2018, equations 5 and 10.
    """

    needs: Needs = "examples"
    neurons_need: Needs = "activation_gradients"

    def elements(self, evidence: Evidence) -> Tensor:
        """A score per weight."""
        return 0.5 * evidence.weight**2 * evidence.square

    def examples(self, slopes: Tensor) -> Sequence[Tensor]:
        """What is averaged over examples, from the derivatives by a gate on each unit, [examples, size]."""
        return [0.5 * slopes.square()]

    def combine(self, means: Tensor) -> Tensor:
        """From the means, one row each, to the scores."""
        return means[0]


METHOD = Fisher
