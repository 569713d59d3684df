"""Connection sensitivity: how strongly the loss feels each weight."""

from __future__ import annotations

from torch import Tensor

from luthier.importance import Evidence, Needs


class Snip:
    """Connection sensitivity: how strongly the loss feels each weight.

    Formula:
        sum of |w dL/dw| over all weights that go with the index

    Source:
        Lee et al., "SNIP: single-shot network pruning", ICLR 2019.
    """

    needs: Needs = "gradients"

    def elements(self, evidence: Evidence) -> Tensor:
        """A score per weight."""
        return (evidence.weight * evidence.gradient).abs()

    def combine(self, total: Tensor) -> Tensor:
        """From the sum over an index's weights to its score."""
        return total


METHOD = Snip
