"""Whose an entry of an activation is: the examples of a batch, followed through reshapes and transpositions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from luthier.importance._batches import lies
from luthier.model import Analysis, axes
from luthier.model.axes import Axis, Product, find, touches
from luthier.model.trace import Inputs


@dataclass(frozen=True)
class Owners:
    """Along one dimension of an activation, the example that each index belongs to.

    Args:
        dim: the dimension.
        index: of examples, [size of the dimension].
        count: how many examples there are.
    """

    dim: int
    index: Tensor
    count: int

    def sums(self, values: Tensor, dim: int, units: Tensor, size: int) -> Tensor:
        """Sums of an activation's entries by example and by unit.

        Args:
            values: one for each entry.
            dim: the dimension of the units.
            units: the unit that each index of it belongs to, -1 for none.
            size: how many units there are.

        Returns:
            [examples, size].
        """
        others = [i for i in range(values.dim()) if i not in (self.dim, dim)]
        left = (values.sum(others, keepdim=True) if others else values).cpu()
        rows, columns = _along(self.index, self.dim, left), _along(units, dim, left)
        where, mine = (rows * size + columns).flatten(), columns.flatten() >= 0
        out = torch.zeros(self.count * size, dtype=values.dtype)
        return out.index_add_(0, where[mine], left.flatten()[mine]).view(self.count, size)


def _along(index: Tensor, dim: int, like: Tensor) -> Tensor:
    return index.view([-1 if i == dim else 1 for i in range(like.dim())]).expand(like.shape)


@dataclass(frozen=True)
class Examples:
    """The examples of a batch.

    Args:
        count: how many there are.
        along: the axes of the network's inputs that they lie along.
    """

    count: int
    along: frozenset[Axis]

    @classmethod
    def of(cls, analysis: Analysis, inputs: Inputs, count: int, at: int) -> Examples:
        """Those of a batch whose examples lie along a dimension of the inputs."""
        holes = [n for n in analysis.traced.program.graph.nodes if n.op == "placeholder"]
        found: set[Any] = set()
        for node, value in zip(holes, analysis.traced.program.flatten(inputs.args, inputs.kwargs), strict=False):
            dims, dim = analysis.facts.dims[node], lies(value, count, at)
            if dims and dim is not None:
                found.add(find(dims[dim].expr))  # type: ignore[union-attr]
        return cls(count, frozenset(a for a in found if isinstance(a, Axis) and a.size > 1))

    def at(self, dims: Any, shape: Sequence[int]) -> Owners | None:
        """Whose the entries of an activation are; None where its dimensions do not tell.

        Args:
            dims: what they are made of, in the example.
            shape: of the activation.
        """
        if self.count == 1:
            return Owners(0, torch.zeros(shape[0], dtype=torch.long), 1)
        held = [i for i, d in enumerate(dims) if touches(d.expr, set(self.along))]
        index = self._index(find(dims[held[0]].expr), shape[held[0]]) if len(held) == 1 else None
        return None if index is None else Owners(held[0], index, self.count)

    def _index(self, expr: axes.Expr, size: int) -> Tensor | None:
        """(time x examples) -> 0, 1, 2, 0, 1, 2 ...; None where other lengths than the example's leave it open."""
        parts = [find(p) for p in expr.parts] if isinstance(expr, Product) else [expr]
        mine = [i for i, part in enumerate(parts) if touches(part, set(self.along))]
        if len(mine) != 1 or parts[mine[0]] not in self.along:
            return None
        outer, inner = (math.prod(p.size for p in side) for side in (parts[: mine[0]], parts[mine[0] + 1 :]))
        if outer * self.count * inner != size:
            return None
        return torch.arange(self.count).repeat_interleave(inner).repeat(outer)
