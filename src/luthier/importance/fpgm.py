"""Distance to the others: a filter near the geometric median can be replaced by the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from luthier.importance import Needs


class Fpgm:
    """Distance to the others: a filter near the geometric median can be replaced by the rest.

    Formula:
        sum over j of |f_i - f_j|, f_i the weights that make index i

    Source:
        He et al., "Filter pruning via geometric median", CVPR 2019.
    """

    needs: Needs = "nothing"

    def rows(self, matrix: Tensor) -> Tensor:
        """From the weights that make each index, [size, features], to its score."""
        return torch.cdist(matrix, matrix).sum(1)


METHOD = Fpgm
