"""Least squares after a cut: what consumed the removed units is re-fitted to what it computed before.

A layer computed y = W x; it now sees the kept inputs x_K alone. The weights nearest in output are
V = W E[x x_K'] E[x_K x_K']^-1: what the kept units tell of the removed ones is used. Where there is a bias it is
re-fitted with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from luthier import importance
from luthier.errors import UsageError
from luthier.model import Analysis
from luthier.surgery.plan import Plan

DAMPING = 0.001
WIDEST = 8192  # inputs of a layer, counted with a convolution's window: half a gigabyte of moments


def reconstruct(model: nn.Module, analysis: Analysis, plan: Plan, data: Iterable[Any] | None) -> list[str]:
    """Re-fits the consumers of removed units by least squares over the data, in place.

    Args:
        model: the cut network.
        analysis: of the original.
        plan: what was cut.
        data: batches.

    Returns:
        the weights that were changed: those of linear layers and ungrouped convolutions that lost inputs, of at most
        8,192 inputs (times the window).

    Raises:
        UsageError: there is no data, or no layer to look at.

    Source:
        He et al., "Channel pruning for accelerating very deep neural networks", ICCV 2017, equation 3; Luo et al.,
        "ThiNet", ICCV 2017.
    """
    if data is None:
        raise UsageError("compensate='least_squares' needs data=", expected="batches of (inputs, target)", got="None")
    return refit(model, analysis, plan, moments_of(analysis, data))


def moments_of(analysis: Analysis, data: Iterable[Any]) -> dict[str, Tensor]:
    """Second moments of what each layer of the original is fed; those of one network serve all its cuts."""
    return importance.second_moments(analysis.model, data, widest=WIDEST)


def refit(model: nn.Module, analysis: Analysis, plan: Plan, moments: Mapping[str, Tensor]) -> list[str]:
    """As :func:`reconstruct`, with the moments of :func:`moments_of` in hand."""
    parameters, changed = dict(model.named_parameters()), []
    for name, dims in plan.kept.items():
        found = moments.get(name)
        if name in parameters and found is not None and len(found) == 1 and len(dims) > 1 and dims[1] is not None:
            weight = analysis.traced.state[analysis.traced.ties.get(name, name)].detach()
            bias = parameters.get(name.removesuffix("weight") + "bias")
            fitted, shift = _fitted(weight if dims[0] is None else weight[dims[0]], dims[1], found[0], bias is not None)
            with torch.no_grad():
                parameters[name].copy_(fitted.view(parameters[name].shape))
                if bias is not None:
                    bias.add_(shift.to(bias.dtype))
            changed.append(name)
    return changed


def _fitted(weight: Tensor, kept: list[int], moments: Tensor, free: bool) -> tuple[Tensor, Tensor]:
    """The rows' best weights over the kept input channels, [outputs, kept features], and what a free bias gains."""
    rows, size = weight.double().flatten(1), weight[0, 0].numel()
    rows = torch.cat([rows, torch.zeros_like(rows[:, :1])], 1)  # the bias, of which only the change is sought
    columns = torch.tensor([c * size + k for c in kept for k in range(size)] + [rows.shape[1] - 1] * free)
    inner = moments[columns][:, columns]
    difference = rows @ moments[:, columns] - rows[:, columns] @ inner
    damped = inner + DAMPING * inner.diagonal().mean() * torch.eye(len(columns), dtype=inner.dtype)
    best = rows[:, columns] + torch.linalg.solve(damped, difference.T).T  # what the data do not ask for stays
    return (best[:, :-1], best[:, -1]) if free else (best, torch.zeros(len(best)))
