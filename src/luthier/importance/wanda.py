"""Weight x activation: a large weight on a silent input does little."""

from __future__ import annotations

from torch import Tensor

from luthier.importance import Evidence, Needs


class Wanda:
    """Weight x activation: a large weight on a silent input does little.

    Formula:
        sum of |w| rms(x) over all weights that go with the index, x the input that the weight multiplies

    Source:
        Sun et al., "A simple and effective pruning approach for large language models", ICLR 2024.
    """

    needs: Needs = "inputs"

    def elements(self, evidence: Evidence) -> Tensor:
        """A score per weight."""
        return evidence.weight.abs() * (1.0 if evidence.inputs is None else evidence.inputs)

    def combine(self, total: Tensor) -> Tensor:
        """From the sum over an index's weights to its score."""
        return total


METHOD = Wanda
