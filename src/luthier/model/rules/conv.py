"""Convolutions, transposed and grouped ones too: channels = groups x channels per group."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import fx

from luthier.model.axes import Axis, Product, mark
from luthier.model.op import Dim, Dims, Op
from luthier.model.rules import Rule
from luthier.model.rules.linear import added_bias

Size = Callable[[Any], int]


def conv(op: Op) -> Dims:
    """Channels in are summed over, positions are held."""
    transposed = "transpose" in op.name
    x, w, bias = op.arg(0), op.arg(1), op.arg(2, "bias")
    weight, image = op.dims(w), op.dims(x)
    batched = len(image) == len(weight)
    channel = 1 if batched else 0
    for d in [*weight[2:], *image[channel + 1 :]]:
        op.freeze(d, "positions that a window slides over")
    groups = _groups(op)
    if groups == 1:
        op.contract(x, channel, w, 0 if transposed else 1)
        out = weight[1 if transposed else 0]
    else:
        out = _grouped(op, groups, transposed, channel)
    if bias is not None:
        out = added_bias(op, out, op.dims(bias)[0])
    shape = op.shape
    return [*image[:channel], out, *(op.fixed(s, "positions of an image") for s in shape[channel + 1 :])]


def _groups(op: Op) -> int:
    position = 8 if op.name == "convolution" else 6
    return int(op.arg(position, "groups", 1))


def _grouped(op: Op, groups: int, transposed: bool, channel: int) -> Dim:
    """Inputs are groups x i, outputs groups x o; the weight holds one of them per group only."""
    x, weight = op.dims(op.arg(0))[channel], op.dims(op.arg(1))
    g = Axis(groups)
    inside = Axis(x.size // groups)
    outside = Axis(weight[1].size if transposed else weight[0].size // groups)
    mark(g, "groups")
    why = op.because("groups that do not line up")
    from luthier.model.axes import unify

    if transposed:
        unify(weight[0].expr, Product([g, inside]), why)
        unify(weight[1].expr, outside, why)
    else:
        unify(weight[0].expr, Product([g, outside]), why)
        unify(weight[1].expr, inside, why)
    unify(x.expr, Product([g, inside]), why)
    if not (x.zero or all(d.zero for d in weight)):
        op.freeze(x, "a sum over values that a mask does not make zero")
    op.facts.contracted.append((op.arg(0), channel))
    op.facts.memo[op.node] = g
    return Dim(Product([g, outside]), all(d.zero for d in weight[:2]))


def rewrite(op: Op, node: fx.Node, size: Size) -> None:
    """The number of groups that are left."""
    g = op.facts.memo.get(op.node)
    if g is not None:
        node.update_arg(6, size(g))


def macs(op: Op, size: Size) -> int:
    """Each weight meets each position of the output (of the input, where transposed)."""
    transposed = "transpose" in op.name
    weight = op.dims(op.arg(1))
    image = op.dims(op.arg(0)) if transposed else _result(op)
    channel = len(image) - len(weight) + 1
    batch = math.prod(size(d) for d in image[:channel])
    return batch * math.prod(size(d) for d in image[channel + 1 :]) * math.prod(size(d) for d in weight)


def _result(op: Op) -> Dims:
    found: Any = op.facts.dims[op.node]
    return list(found)


_RULE = Rule(conv, rewrite, macs)
RULES = {f"conv{t}{n}d": _RULE for t in ("", "_transpose") for n in (1, 2, 3)}
