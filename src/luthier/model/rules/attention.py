"""Fused attention: heads are tied, the size of a head is summed over, and its scale is pinned to the original."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import fx

from luthier.model.axes import Axis, Product
from luthier.model.op import Dim, Dims, Op
from luthier.model.rules import Rule
from luthier.model.rules.linear import any_zero, attention_roles, biased

Size = Callable[[Any], int]


def attention(op: Op) -> Dims:
    """softmax(q k' * scale + mask) v, heads of k and v repeated where there are fewer of them."""
    q, k, v = (op.dims(op.arg(i)) for i in range(3))
    mask = op.arg(3, "attn_mask")
    if op.arg(7, "enable_gqa", False) and q[-3].size != k[-3].size:
        repeats = Axis(q[-3].size // k[-3].size, op.because("query heads per key head"))
        op.unify(q[-3], Dim(Product([k[-3].expr, repeats])))
        op.unify(k[-3], v[-3])
        batch = [*biased(q[:-3]), Dim(q[-3].expr, v[-3].zero)]
    else:
        batch = op.broadcast([q[:-2], k[:-2], v[:-2]], lambda flags: flags[2] is True)
    attention_roles(q, [*k[:-2], k[-1], k[-2]])
    attention_roles(q, v)
    if q[-1].zero or k[-1].zero:
        op.unify(q[-1], k[-1])
    else:
        op.contract(op.arg(0), -1, op.arg(1), -1)
    for d in (k[-2], v[-2]):
        op.freeze(d, "keys that a softmax runs over")
    if op.arg(5, "is_causal", False):
        op.freeze(q[-2], "positions that a causal mask counts")
    op.unify(k[-2], v[-2])
    if isinstance(mask, fx.Node):
        bias = op.dims(mask)
        op.broadcast([[*batch, q[-2], k[-2]], bias], any_zero)
    return [*batch, *biased(q[-2:-1]), v[-1]]


def rewrite(op: Op, node: fx.Node, size: Size) -> None:
    """Pins the scale to the original size of a head."""
    q = op.dims(op.arg(0))
    if op.arg(6, "scale") is None and size(q[-1]) != q[-1].size:
        node.update_kwarg("scale", 1 / math.sqrt(q[-1].size))


def macs(op: Op, size: Size) -> int:
    """Scores, then weighted values."""
    q, v = op.dims(op.arg(0)), op.dims(op.arg(2))
    rows = math.prod(size(d) for d in q[:-1])
    return rows * size(v[-2]) * (size(q[-1]) + size(v[-1]))


RULES = {"scaled_dot_product_attention": Rule(attention, rewrite, macs)}
