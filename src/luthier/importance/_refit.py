"""Least squares for what is left of a layer: the rest of a row makes up for what was removed."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_EXACT = 1024
"""Up to this many features a row, the kept weights are solved for exactly; above it by :data:`STEPS` of descent."""
STEPS = 40
_CHUNK = 2**24


def damped(covariance: Tensor, damping: float) -> Tensor:
    """With a share of the mean of its diagonal added there, [..., features, features]; dead inputs get 1."""
    diagonal = covariance.diagonal(dim1=-2, dim2=-1)
    added = damping * diagonal.mean(-1, keepdim=True) + (diagonal == 0)
    return covariance + torch.diag_embed(added)


def refit(rows: Tensor, kept: Tensor, moments: Tensor) -> Tensor:
    """Weights that are zero where removed and otherwise nearest in output to the original's.

    Args:
        rows: the original, [outputs, features].
        kept: boolean, same shape.
        moments: E[x x'] of the inputs, positive definite, [features, features].

    Returns:
        argmin over v, zero outside ``kept``, of E[((rows - v) x)^2].

    Source:
        the problem: Frantar and Alistarh, "SparseGPT", ICML 2023, equation 2; conjugate gradients: Hestenes and
        Stiefel, 1952.
    """
    if rows.shape[1] > MOST_EXACT:
        return _descended(rows, kept, moments)
    step = max(1, _CHUNK // rows.shape[1] ** 2)
    parts = zip(torch.split(rows, step), torch.split(kept, step), strict=True)
    return torch.cat([_solved(r, k, moments) for r, k in parts])


def _solved(rows: Tensor, kept: Tensor, moments: Tensor) -> Tensor:
    """H_kk v_k = H_k w for every row at once: removed rows and columns are those of the identity."""
    mask = kept.to(moments.dtype)
    left = mask[:, :, None] * moments * mask[:, None, :] + torch.diag_embed(1 - mask)
    out: Tensor = torch.linalg.solve(left, mask * (rows @ moments))
    return out


def _descended(rows: Tensor, kept: Tensor, moments: Tensor) -> Tensor:
    """The same by conjugate gradients, from the weights as they are: the error falls with every step."""
    v = rows * kept
    residual = (rows - v) @ moments * kept
    direction, size = residual, residual.square().sum(1, keepdim=True)
    for _ in range(STEPS):
        bent = direction @ moments * kept
        step = size / (direction * bent).sum(1, keepdim=True).clamp_min(1e-300)
        v = v + step * direction
        residual = residual - step * bent
        before, size = size, residual.square().sum(1, keepdim=True)
        direction = residual + size / before.clamp_min(1e-300) * direction
    return v


def block_errors(matrix: Tensor, inverse: Tensor, blocks: Tensor) -> Tensor:
    """How much the mean squared output grows when a block of inputs goes and the rest is re-fitted.

    Args:
        matrix: weights, [outputs, features].
        inverse: of the inputs' second moments, [features, features].
        blocks: the features of each block, [blocks, size].

    Returns:
        tr(W_b (H^-1_bb)^-1 W_b'), [blocks].
    """
    inner = inverse[blocks[:, :, None], blocks[:, None, :]]
    mine = matrix[:, blocks].permute(1, 2, 0)  # [blocks, size, outputs]
    out: Tensor = (mine * torch.linalg.solve(inner, mine)).sum((1, 2))
    return out
