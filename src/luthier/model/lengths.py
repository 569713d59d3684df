"""Lengths of sequences: which dimensions of the inputs count positions, and which lengths a captured network takes.

What the capture says is not enough: code may ask for the length, and a capture keeps one answer. So a length is free
only where the graph was seen to compute what the network computes at others too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from luthier.errors import UsageError
from luthier.model.compare import SAME, difference, flat, repeatable
from luthier.model.program import Length, Rebuilt

if TYPE_CHECKING:
    from luthier.model.trace import Inputs, Traced

Positions = Mapping[int, tuple[int, ...]]
"""Flat input -> the dimensions of it that may count positions."""


def positions(leaves: Sequence[Any]) -> dict[int, tuple[int, ...]]:
    """Which dimensions may count positions: of token numbers, of series of vectors, and of masks for either.

    Example:
        >>> positions([torch.zeros(2, 7, dtype=torch.long), torch.ones(2, 1, 7, 7), torch.zeros(2, 5)])
        {0: (1,), 1: (2, 3)}
    """
    found: dict[int, tuple[int, ...]] = {}
    for i, t in enumerate(leaves):
        if isinstance(t, torch.Tensor) and t.dtype != torch.bool:
            found |= {i: (1,)} if t.dim() == 2 and not t.is_floating_point() else {}
            found |= {i: (1, 2)} if t.dim() == 3 and t.is_floating_point() else {}
    known = {leaves[i].shape[d] for i, dims in found.items() for d in dims} - {1}
    for i, t in enumerate(leaves):
        if found and i not in found and isinstance(t, torch.Tensor):
            dims = tuple(d for d in range(1, t.dim()) if t.shape[d] in known)
            found |= {i: dims} if dims else {}
    return {i: found[i] for i in sorted(found) if any(leaves[i].shape[d] > 1 for d in found[i])}


def accepted(model: nn.Module, inputs: Inputs, where: Positions) -> dict[int, tuple[int, ...]]:
    """The dimensions of these in which the network itself takes other sizes."""
    probe = Probe.of(model, model, inputs)
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for leaf, dims in where.items():
        for dim in dims:
            groups.setdefault((dim, inputs.leaves[leaf].shape[dim]), []).append((leaf, dim))
    found = {x for (_, size), places in groups.items() for x in probe.lengths(tuple(places), size) if not x.fixed}
    left = {leaf: tuple(sorted(x.dim for x in found if x.leaf == leaf)) for leaf in where}
    return {leaf: mine for leaf, mine in left.items() if mine}


def examine(model: nn.Module, traced: Traced, where: Positions) -> tuple[Length, ...] | None:
    """What each length may be; None if the capture left one free that the graph does not follow.

    Args:
        model: the network, in evaluation mode; what it computes is compared, on a copy that shares its parameters.
        traced: its capture.
        where: see :func:`positions`.
    """
    parameters, transient = traced.parameters, tuple(traced.transient)
    graph = Rebuilt(traced.program, traced.state, parameters, traced.ties, transient).eval()
    probe = Probe.of(model, graph, traced.inputs)
    found: list[Length] = []
    rigid = _is_rigid(traced)
    for places, size in _together(traced, where).items():
        given = isinstance(size, int) and rigid
        lengths = [Length(leaf, dim, size, size) for leaf, dim in places] if given else probe.lengths(places, size)
        if isinstance(size, torch.SymInt) and lengths[0].fixed:
            return None
        found += lengths
    return tuple(sorted(found, key=lambda x: (x.leaf, x.dim)))


def _is_rigid(traced: Traced) -> bool:
    """Whether a size that the capture fixed must not be tried at others.

    The operations of recurrent layers do not look whether their states are as many as the examples: a wrong number
    ends the process. So none is tried where the number of states is fixed.
    """
    kinds = ("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input", "aten.rnn_relu.input")
    layers = [n for n in traced.program.graph.nodes if str(n.target) in kinds]
    states = [n.args[1][0] if isinstance(n.args[1], list | tuple) else n.args[1] for n in layers]
    return any(not varies(state.meta["val"].shape[-2]) for state in states)


def resized(inputs: Inputs, lengths: Sequence[Length], at: int = 0) -> Inputs:
    """The inputs at other lengths that were tried; entries are repeated or left out.

    Args:
        inputs: of the captured network.
        lengths: which to change, to the one of number ``at`` that was tried.
    """
    leaves = inputs.leaves
    for x in lengths:
        if x.tried:
            leaves[x.leaf] = _stretched(leaves[x.leaf], x.dim, x.tried[at % len(x.tried)])
    return inputs.with_leaves(leaves)


def _stretched(tensor: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    index = torch.arange(size, device=tensor.device) % tensor.shape[dim]
    return tensor.index_select(dim, index)


def _together(traced: Traced, where: Positions) -> dict[tuple[tuple[int, int], ...], Any]:
    """Dimensions that are one length: by symbol where the capture has one, else by place and size."""
    holes = [n for n in traced.program.graph.nodes if n.op == "placeholder"]
    groups: dict[Any, list[tuple[int, int]]] = {}
    sizes: dict[Any, Any] = {}
    for leaf, dims in where.items():
        shape = holes[leaf].meta["val"].shape
        for dim in dims if varies(shape[0]) else (0, *dims):  # dimension 0 is no batch in all networks
            size, free = shape[dim], varies(shape[dim])
            key = str(size) if free else (dim, int(size))
            groups.setdefault(key, []).append((leaf, dim))
            sizes[key] = size if free else int(size)
    return {tuple(places): sizes[key] for key, places in groups.items()}


def varies(size: Any) -> bool:
    """Whether a captured size is free; a symbol that the capture found to be one number is not."""
    return isinstance(size, torch.SymInt) and not size.node.expr.is_number


@dataclass(frozen=True)
class Probe:
    """Runs a network and its graph side by side at other lengths.

    Args:
        model: the network; None if it cannot be copied.
        graph: what should compute the same.
        inputs: at the first length.
    """

    model: nn.Module | None
    graph: Callable[..., Any]
    inputs: Inputs

    @classmethod
    def of(cls, model: nn.Module, graph: Callable[..., Any], inputs: Inputs) -> Probe:
        """On a copy of the network that shares its parameters."""
        shared = {id(p): p for p in model.parameters()}
        try:
            twin = copy.deepcopy(model, shared)  # networks may keep what they compute for a length
        except Exception:
            twin = None
        return cls(twin, graph, inputs)

    def lengths(self, places: tuple[tuple[int, int], ...], size: Any) -> list[Length]:
        """What dimensions that are one length may be, by (flat input, dimension); ``size`` is their captured size."""
        least, most = _bounds(size)
        now = int(size.node.hint) if isinstance(size, torch.SymInt) else int(size)
        tried: list[int] = []
        for n in (now + 1, now // 2, 2 * now):
            same = self._same(places, n) if least <= n <= most and n != now and len(tried) < 2 else None
            if same is False:
                tried = []
                break
            tried += [n] if same else []
        if not tried:
            return [Length(leaf, dim, now, now) for leaf, dim in places]
        least = max(least, 2) if least < 2 and not self._same(places, 1) else least
        return [Length(leaf, dim, least, int(most) if most < _ANY else None, tuple(tried)) for leaf, dim in places]

    def _same(self, places: Sequence[tuple[int, int]], n: int) -> bool | None:
        """Whether the graph computes what the network does; None where the network itself takes no such length."""
        inputs = resized(self.inputs, [Length(leaf, dim, n, n, (n,)) for leaf, dim in places])
        with torch.no_grad():
            try:
                expected = self._outputs(self.model, inputs)
            except Exception:
                return None
            try:
                got = self._outputs(self.graph, inputs)
            except Exception:
                return False
        return difference(got, expected) <= SAME

    def _outputs(self, model: Callable[..., Any] | None, inputs: Inputs) -> list[Any]:
        if model is None:
            raise UsageError("a network that cannot be copied is not tried at other lengths")
        with repeatable():
            return flat(model(*inputs.args, **inputs.kwargs))


_ANY = 1 << 30
"""Limits beyond it are none."""


def _bounds(size: Any) -> tuple[int, float]:
    """The least and the largest length that the capture allows; it leaves 0 and 1 open."""
    if not isinstance(size, torch.SymInt):
        return 1, float("inf")
    bounds = size.node.shape_env.bound_sympy(size.node.expr)
    least = int(bounds.lower) if bounds.lower > 2 else 1
    return least, float(bounds.upper)
