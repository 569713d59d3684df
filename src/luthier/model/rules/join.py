"""Joining and taking apart: concatenation is a sum of axes, and so is what is split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from luthier.model import axes
from luthier.model.axes import Sum
from luthier.model.op import Dim, Dims, Op, Result
from luthier.model.rules import Rule

Size = Callable[[Any], int]


def cat(op: Op) -> Dims:
    """Along one dimension a sum of axes, along the others one axis each."""
    parts = [d for d in (op.dims(n) for n in op.arg(0)) if [x.size for x in d] != [0]]
    at = op.arg(1, "dim", 0) % len(parts[0])
    out: Dims = []
    for i, first in enumerate(parts[0]):
        zero = all(p[i].zero for p in parts)
        if i == at:
            out.append(Dim(Sum([p[i].expr for p in parts]), zero))
            continue
        for p in parts[1:]:
            op.unify(first, p[i])
        out.append(Dim(first.expr, zero))
    return out


def stack(op: Op) -> Dims:
    """A new dimension that is held; the others are one axis each."""
    parts = [op.dims(n) for n in op.arg(0)]
    out = op.broadcast(parts, lambda flags: all(f is not False for f in flags))
    out.insert(op.arg(1, "dim", 0) % (len(out) + 1), op.fixed(len(parts), "a stack"))
    return out


def split(op: Op) -> Result:
    """The parts of a sum."""
    x = op.dims(op.arg(0))
    at = op.arg(2, "dim", 0) % len(x)
    rest, parts = x[at].expr, []
    why = op.because("a split inside an axis")
    for shape in op.shapes[:-1]:
        head, rest = axes.split(rest, (shape or [])[at], why)
        parts.append(head)
    parts.append(rest)
    return [[*x[:at], Dim(p, x[at].zero), *x[at + 1 :]] for p in parts]


def rewrite_split(op: Op, node: fx.Node, size: Size) -> None:
    """Equal parts may differ after a cut: any split becomes a split by sizes."""
    results: Any = op.facts.dims[op.node]
    at = op.arg(2, "dim", 0) % len(op.dims(op.arg(0)))
    if all(size(part[at]) == part[at].size for part in results):
        return
    node.target = torch.ops.aten.split_with_sizes.default
    node.args = (node.args[0], [size(part[at]) for part in results], at)
    node.kwargs = {}


def getitem(op: Op) -> Result:
    """One of several outputs."""
    results: Any = op.facts.dims.get(op.arg(0))
    return results[op.arg(1)] if isinstance(results, list) else None


def slice_(op: Op) -> Dims:
    """A window is one part of a sum."""
    x = list(op.dims(op.arg(0)))
    at = op.arg(1, "dim", 0) % len(x)
    dim, step = x[at], op.arg(4, "step", 1)
    length, start = op.shape[at], op.arg(2, "start") or 0
    if length == dim.size:
        return x
    if step != 1 or not isinstance(start, int) or isinstance(op.arg(3, "end"), fx.Node):
        why = "a slice with steps" if step != 1 else "a slice as long as the input is"
        op.freeze(dim, why)
        x[at] = op.fixed(length, why)
        return x
    start = start + dim.size if start < 0 else start
    because = op.because("a slice inside an axis")
    _, rest = axes.split(dim.expr, start, because)
    part, _ = axes.split(rest, length, because)
    x[at] = Dim(part, dim.zero)
    op.facts.memo[op.node] = (start, length)
    return x


def rewrite_slice(op: Op, node: fx.Node, size: Size) -> None:
    """The window moves with what was cut before it."""
    bounds = op.facts.memo.get(op.node)
    x = op.dims(op.arg(0))
    at = op.arg(1, "dim", 0) % len(x)
    if bounds is None or size(x[at]) == x[at].size:
        return
    why = op.because("a slice inside an axis")
    before, _ = axes.split(x[at].expr, bounds[0], why)
    result: Any = op.facts.dims[op.node]
    start = size(Dim(before)) if bounds[0] else 0
    node.args = (node.args[0], at, start, start + size(result[at]))
    node.kwargs = {}


def select(op: Op) -> Dims:
    """Picking one index holds the dimension."""
    x = op.dims(op.arg(0))
    at = op.arg(1, "dim") % len(x)
    op.freeze(x[at], "a single index is picked out of it")
    return [*x[:at], *x[at + 1 :]]


def unbind(op: Op) -> Result:
    """Taking a dimension apart holds it."""
    x = op.dims(op.arg(0))
    at = op.arg(1, "dim", 0) % len(x)
    op.freeze(x[at], "its indices are taken apart")
    return [[*x[:at], *x[at + 1 :]] for _ in op.shapes]


RULES = {
    "cat": Rule(cat),
    "concat": Rule(cat),
    "stack": Rule(stack),
    **{
        name: Rule(split, rewrite_split)
        for name in ("split", "chunk", "split_with_sizes", "unsafe_split", "unsafe_chunk", "tensor_split")
    },
    "getitem": Rule(getitem),
    "slice": Rule(slice_, rewrite_slice),
    "select": Rule(select),
    "unbind": Rule(unbind),
}
