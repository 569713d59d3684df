"""Optimal brain surgeon, layer by layer: the error that no re-fit of the rest can undo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from luthier.importance import Evidence, Needs
from luthier.importance._refit import block_errors, damped, refit


@dataclass(frozen=True)
class Obs:
    """Optimal brain surgeon, layer by layer: the error that no re-fit of the rest can undo.

    Formula:
        w^2 / [H^-1]_ii, H = E[x x'] of the layer's inputs: the mean squared error of its output when the weight goes
        and the rest of its row is re-fitted; tr(W_b [H^-1]_bb^-1 W_b') for a unit that is block b of its consumers'
        inputs

    Notes:
        ``prune_weights`` then re-fits what it keeps by least squares (by conjugate gradients above 1,024 features a
        row). Where a layer's inputs are unknown (three-dimensional and transposed convolutions, embeddings), H is the
        identity.

    Cost:
        a forward pass a batch, features^2 numbers a layer, features^3 operations a layer

    Source:
        Hassibi and Stork, "Second order derivatives for network pruning", NeurIPS 1992; layer by layer: Frantar and
        Alistarh, "SparseGPT", ICML 2023.
    """

    damping: float = 0.01
    needs: ClassVar[Needs] = "covariance"

    def elements(self, evidence: Evidence) -> Tensor:
        """A score per weight."""
        weight = evidence.weight.double()
        if evidence.covariance is None:
            return weight**2
        freedom = self._inverse(evidence.covariance).diagonal(dim1=1, dim2=2)  # [groups, features]
        rows = weight.reshape(len(freedom), -1, freedom.shape[1])
        return (rows**2 / freedom[:, None]).view(weight.shape)

    def combine(self, total: Tensor) -> Tensor:
        """From the sum over an index's weights to its score."""
        return total

    def inputs(self, evidence: Evidence, where: Tensor, size: int) -> Tensor | None:
        """The growth of a layer's mean squared output when each unit that feeds it goes.

        Args:
            evidence: of the consumer's weight.
            where: the unit that each of its input channels belongs to, -1 for none.
            size: how many units.

        Returns:
            [size]; None where the layer's inputs are unknown or grouped.
        """
        if evidence.covariance is None or len(evidence.covariance) > 1:
            return None
        matrix = evidence.weight.double().flatten(1)
        by_feature = where.repeat_interleave(matrix.shape[1] // len(where))
        order = torch.argsort(by_feature, stable=True)
        blocks = order[by_feature[order] >= 0].view(size, -1)
        return block_errors(matrix, self._inverse(evidence.covariance)[0], blocks)

    def refit(self, evidence: Evidence, kept: Tensor) -> Tensor:
        """The weight with what is kept re-fitted to the layer's original outputs."""
        if evidence.covariance is None:
            return evidence.weight * kept
        moments = damped(evidence.covariance, self.damping)
        weight = evidence.weight.double()
        rows, mask = (t.reshape(len(moments), -1, moments.shape[-1]) for t in (weight, kept))
        made = [refit(r, k, h) for r, k, h in zip(rows, mask, moments, strict=True)]
        out: Tensor = torch.stack(made).view(weight.shape).to(evidence.weight.dtype)
        return out

    def _inverse(self, covariance: Tensor) -> Tensor:
        out: Tensor = torch.linalg.inv(damped(covariance, self.damping))
        return out


METHOD = Obs
