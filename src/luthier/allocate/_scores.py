"""Scores of different groups made comparable, and one cut through all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from luthier.model.groups import Group


def by_mean(scores: Tensor) -> Tensor:
    """Divided by their mean size."""
    scores = scores.double()
    mean = scores.abs().mean()
    return scores / mean if mean > 0 else scores


def lamp(scores: Tensor) -> Tensor:
    """Each score squared, over the sum of the squares of those that would survive it.

    Formula:
        s_u^2 / sum of s_v^2 over all v that are not below u (the last one's is 1)

    Where scores fall below 0 (criterion "movement") the lowest counts as 0: squared, they would come out on top.

    Source:
        Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning", ICLR 2021, equation 4.
    """
    values = scores.double().flatten()
    squares = (values - values.min().clamp(max=0)).square() if len(values) else values
    order = squares.argsort(stable=True)
    sorted_squares = squares[order]
    left = sorted_squares.flip(0).cumsum(0).flip(0)
    out = torch.empty_like(squares)
    out[order] = sorted_squares / left.clamp_min(torch.finfo(squares.dtype).tiny)
    return out.view(scores.shape)


def cut_together(groups: Iterable[Group], scores: Mapping[str, Tensor], gone: int) -> dict[str, float]:
    """How many of each group stay when the lowest ``gone`` scores of all go."""
    mine = {g.name: scores[g.name] for g in groups}
    if not gone:
        return {name: float(len(s)) for name, s in mine.items()}
    line = torch.cat(list(mine.values())).sort().values[gone - 1]
    return {name: float((s > line).sum()) for name, s in mine.items()}
