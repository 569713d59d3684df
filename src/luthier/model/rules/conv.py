"""Convolutions, transposed and grouped ones too: channels = groups x channels per group."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import fx

from luthier.model.axes import Axis, Product, mark
from luthier.model.op import Dim, Dims, Op, whole
from luthier.model.rules import Rule
from luthier.model.rules.linear import added_bias, biased

Size = Callable[[Any], int]
_GROUPS = 6
"""The place of the number of groups among the arguments."""


def conv(op: Op) -> Dims:
    """Channels in are summed over, positions are held."""
    transposed = "transpose" in op.name
    x, w, bias = op.arg(0), op.arg(1), op.arg(2, "bias")
    weight, image = op.dims(w), op.dims(x)
    batched = len(image) == len(weight)
    channel = 1 if batched else 0
    groups = _groups(op)
    pointwise = _is_pointwise(op)
    for d in [*weight[2:], *([] if pointwise else image[channel + 1 :])]:
        op.freeze(d, "positions that a window slides over")
    if groups == 1:
        op.contract(x, channel, w, 0 if transposed else 1)
        out = weight[1 if transposed else 0]
    else:
        out = _grouped(op, groups, transposed, channel)
    batch = image[:channel]
    moved = [op.fixed(s, "positions of an image") for s in op.shape[channel + 1 :]]
    where = image[channel + 1 :] if pointwise else moved
    if bias is None:
        return [*batch, out, *where]
    return [*biased(batch), added_bias(op, out, op.dims(bias)[0]), *biased(where)]


def _groups(op: Op) -> int:
    """The number of groups; where it is the batch size (kernels made for each example), that of the example."""
    groups = op.arg(_GROUPS, "groups", 1)
    return whole(groups.meta["val"]) if isinstance(groups, fx.Node) else int(groups)


def _is_pointwise(op: Op) -> bool:
    """Whether every position is looked at by itself: a linear layer in other clothes, positions being free."""
    kernel = op.dims(op.arg(1))[2:]
    numbers = [*_listed(op.arg(3, "stride", 1)), *(1 + 2 * p for p in _listed(op.arg(4, "padding", 0)))]
    return "transpose" not in op.name and all(d.size == 1 for d in kernel) and all(n == 1 for n in numbers)


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):  # padding="same" or "valid": no padding where the kernel is one wide
        return [0]
    return [value] if isinstance(value, int) else list(value)


def _grouped(op: Op, groups: int, transposed: bool, channel: int) -> Dim:
    """Inputs are groups x i, outputs groups x o; the weight holds one of them per group only."""
    x, weight = op.dims(op.arg(0))[channel], op.dims(op.arg(1))
    g = Axis(groups)
    inside = Axis(x.size // groups)
    outside = Axis(weight[1].size if transposed else weight[0].size // groups)
    mark(g, "groups")
    if isinstance(op.arg(_GROUPS, "groups"), fx.Node):
        op.freeze(Dim(g), "one group for each example")
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
    op.facts.contracted.append((op.arg(0), channel, inside))  # the groups themselves go on
    op.facts.memo[op.node] = g
    return Dim(Product([g, outside]), all(d.zero for d in weight[:2]))


def rewrite(op: Op, node: fx.Node, size: Size) -> None:
    """The number of groups that are left."""
    g = op.facts.memo.get(op.node)
    if g is not None and size(g) != g.size:
        node.update_arg(_GROUPS, size(g))


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
