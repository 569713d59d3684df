"""The one reduction from elements to axes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from luthier.model import axes
from luthier.model.groups import Group, Occurrence


def sum_over_axis(group: Group, elements: Mapping[str, Tensor]) -> Tensor:
    """For each index of an axis, the sum of ``elements`` over all that goes with it.

    Args:
        group: the axis with its occurrences.
        elements: scores by parameter name.

    Returns:
        [group size], float64.
    """
    total = torch.zeros(group.size, dtype=torch.float64)
    for place in group.occurrences:
        if place.parameter in elements:
            total += along(group, place, elements[place.parameter])
    return total


def along(group: Group, place: Occurrence, values: Tensor) -> Tensor:
    """One occurrence's share: ``values`` summed over all dimensions but one, then by index of the axis."""
    others = [i for i in range(values.dim()) if i != place.dim]
    flat = values.sum(others, dtype=torch.float64) if others else values.double()
    return by_index(group, place.expr, flat.cpu())


def by_index(group: Group, expr: axes.Expr, flat: Tensor) -> Tensor:
    """Sums a vector over one dimension by the index of the group's axis that each entry belongs to."""
    where = torch.from_numpy(axes.positions(expr, group.axis))
    mine = where >= 0
    return torch.zeros(group.size, dtype=torch.float64).index_add_(0, where[mine], flat[mine].double())


def producing_rows(group: Group, state: Mapping[str, Tensor]) -> Tensor:
    """The weights that make each index of an axis, as the rows of a matrix.

    Returns:
        [group size, features], float64.
    """
    place = group.occurrences[0]
    flat = state[place.parameter].detach().double().cpu().movedim(place.dim, 0)
    where = torch.from_numpy(axes.positions(place.expr, group.axis))
    order = torch.argsort(where, stable=True)
    return flat.reshape(len(where), -1)[order[where[order] >= 0]].reshape(group.size, -1)
