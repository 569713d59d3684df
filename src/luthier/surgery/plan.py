"""A plan: what stays of every tensor. Printable, and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from luthier.errors import UsageError
from luthier.model import Analysis, axes, cost

Kept = dict[str, list[list[int] | None]]
_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What stays of a network.

    Args:
        groups: group name -> sorted indices that stay; groups that are not named stay whole.
        sizes: group name -> how many indices it had.
        kept: parameter name -> one entry per dimension: None (all kept) or the sorted kept indices.
        buffers: the same for buffers and constants.
        shapes: parameter name -> its shape before the cut.
        macs: multiply-adds on the example inputs, before and after.
        removed: whole branches that went.
    """

    groups: dict[str, list[int]]
    sizes: dict[str, int]
    kept: Kept = field(repr=False)
    buffers: Kept = field(default_factory=dict, repr=False)
    shapes: dict[str, list[int]] = field(default_factory=dict, repr=False)
    macs: tuple[int, int] = (0, 0)
    removed: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[int, int]:
        """How many parameters, before and after, each name counted."""
        before = {name: math.prod(shape) for name, shape in self.shapes.items()}
        after = {name: math.prod(_cut_shape(self.shapes[name], self.kept[name])) for name in self.shapes}
        return sum(before.values()), sum(after.values())

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "version": _VERSION,
            "groups": self.groups,
            "sizes": self.sizes,
            "kept": self.kept,
            "buffers": self.buffers,
            "shapes": self.shapes,
            "macs": list(self.macs),
            "removed": list(self.removed),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """The plan from plain data.

        Raises:
            UsageError: the data is no plan, or one of a newer version.
        """
        if not isinstance(data, Mapping) or data.get("version") != _VERSION:
            got = data.get("version") if isinstance(data, Mapping) else type(data).__name__
            raise UsageError("this is no plan that can be read", expected=f"version {_VERSION}", got=got)
        macs, removed = tuple(data["macs"]), tuple(data["removed"])
        groups, sizes, kept, buffers, shapes = (
            dict(data[name]) for name in ("groups", "sizes", "kept", "buffers", "shapes")
        )
        return cls(groups, sizes, kept, buffers, shapes, macs, removed)

    def restore(self, cut: Mapping[str, torch.Tensor], original: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Undoes the cut: the pruned values at their old places, the original's elsewhere.

        Args:
            cut: the pruned network's ``state_dict``.
            original: the dense network's.

        Returns:
            a ``state_dict`` for the dense network.
        """
        out = {}
        for name, tensor in original.items():
            out[name] = tensor.detach().clone()
            dims = self.kept.get(name) or self.buffers.get(name)
            if name not in cut:
                continue
            if dims is None or all(d is None for d in dims):
                out[name].copy_(cut[name])
            else:
                out[name][_grid(tensor.shape, dims)] = cut[name].detach().to(tensor.dtype)
        return out

    def __str__(self) -> str:
        width = max([len(name) for name in self.sizes] + [5])
        lines = [f"{'group':<{width}}  {'before':>7}  {'after':>7}  {'kept':>6}"]
        for name, size in self.sizes.items():
            left = len(self.groups[name]) if name in self.groups else size
            lines.append(f"{name:<{width}}  {size:>7}  {left:>7}  {left / size:>6.0%}")
        lines += [f"{name}: removed" for name in self.removed]
        (p0, p1), (m0, m1) = self.parameters, self.macs
        lines.append(
            f"parameters {p0:,} -> {p1:,} ({p1 / max(p0, 1):.0%}), "
            f"MACs on the whole example batch {m0:,} -> {m1:,} ({m1 / max(m0, 1):.0%})"
        )
        return "\n".join(lines)


def _cut_shape(shape: Sequence[int], dims: Sequence[list[int] | None]) -> list[int]:
    return [s if d is None else len(d) for s, d in zip(shape, dims, strict=True)]


def _grid(shape: Sequence[int], dims: Sequence[list[int] | None]) -> tuple[torch.Tensor, ...]:
    index = [np.arange(s) if d is None else np.asarray(d) for s, d in zip(shape, dims, strict=True)]
    return tuple(torch.from_numpy(i) for i in np.ix_(*index))


def make_plan(analysis: Analysis, keep: cost.KeepByName) -> Plan:
    """The plan for a cut, without doing it.

    Args:
        analysis: of the network.
        keep: group name -> indices that stay.

    Raises:
        UsageError: an unknown group, an index that is out of range or named twice, or a group left empty.
    """
    groups = {name: _checked(analysis, name, index) for name, index in keep.items()}
    groups = {name: index for name, index in groups.items() if len(index) < analysis.group(name).size}
    cut = cost.keep_axes(analysis, groups)
    everything = {name: _kept_dims(analysis, name, cut) for name in analysis.state}
    ties = analysis.traced.ties
    everything |= {name: everything[source] for name, source in ties.items() if source in everything}
    shapes = {n: list(analysis.traced.state[ties.get(n, n)].shape) for n in analysis.traced.parameters}
    whole: Kept = {n: [None] * len(s) for n, s in shapes.items()}
    kept = {n: everything.get(n, whole[n]) for n in shapes}
    buffers = {n: d for n, d in everything.items() if n not in kept and any(x is not None for x in d)}
    sizes = {g.name: g.size for g in analysis.all_groups if g.default or g.name in groups}
    macs = cost.macs(analysis), cost.macs(analysis, groups)
    return Plan(groups, sizes, kept, buffers, shapes, macs)


def _checked(analysis: Analysis, name: str, index: Sequence[int]) -> list[int]:
    size = analysis.group(name).size
    found = sorted({int(i) for i in index})
    if not found or len(found) != len(list(index)) or found[0] < 0 or found[-1] >= size:
        raise UsageError(
            f"these indices of {name!r} cannot stay",
            expected=f"at least one, each once, from 0 to {size - 1}",
            got=f"{list(index)[:8]}{' ...' if len(list(index)) > 8 else ''}",
        )
    return found


def _kept_dims(analysis: Analysis, name: str, cut: Mapping[axes.Axis, axes.Indices]) -> list[list[int] | None]:
    return [axes.kept(d.expr, cut).tolist() if axes.touches(d.expr, cut) else None for d in analysis.state[name]]
