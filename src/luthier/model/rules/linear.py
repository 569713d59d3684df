"""Linear layers and plain matrix products: the inner dimension is summed over."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from luthier.model import axes
from luthier.model.op import Dim, Dims, Op
from luthier.model.rules import Rule

Size = Callable[[Any], int]


def linear(op: Op) -> Dims:
    """x w' + b: the features of x are summed over."""
    x, w, bias = op.arg(0), op.arg(1), op.arg(2, "bias")
    op.contract(x, -1, w, -1)
    weight = op.dims(w)
    if len(weight) == 1:
        return op.dims(x)[:-1]
    if bias is None:
        return [*op.dims(x)[:-1], weight[0]]
    return [*biased(op.dims(x)[:-1]), added_bias(op, weight[0], op.dims(bias)[0])]


def biased(rows: Sequence[Dim]) -> Dims:
    """Dimensions along which a bias is added to what vanished."""
    return [Dim(d.expr, False) for d in rows]


def added_bias(op: Op, out: Dim, bias: Dim) -> Dim:
    """The output dimension of a layer with a bias."""
    op.unify(out, bias)
    return Dim(out.expr, out.zero and bias.zero)


def linear_macs(op: Op, size: Size) -> int:
    """Every input feature meets every output."""
    return math.prod(size(d) for d in op.dims(op.arg(0))) * (size(op.dims(op.arg(1))[0]) if _is_matrix(op) else 1)


def _is_matrix(op: Op) -> bool:
    return len(op.dims(op.arg(1))) > 1


def addmm(op: Op) -> Dims:
    """b + x w."""
    bias, x, w = op.arg(0), op.arg(1), op.arg(2)
    op.contract(x, -1, w, -2)
    rows = op.dims(x)[:-1]
    out = op.dims(w)[-1]
    added = op.broadcast([[*rows, out], op.dims(bias)], lambda flags: all(f is True for f in flags))
    return added


def baddbmm(op: Op) -> Dims:
    """b + x w for stacks of matrices."""
    bias, x, y = op.dims(op.arg(0)), op.arg(1), op.arg(2)
    product = _stacked(op, x, y)
    return op.broadcast([product, bias], lambda flags: all(f is True for f in flags))


def baddbmm_macs(op: Op, size: Size) -> int:
    """Every entry of the result sums over the inner dimension."""
    return size(op.dims(op.arg(1))[-1]) * math.prod(size(d) for d in _result(op))


def addmm_macs(op: Op, size: Size) -> int:
    """Every input feature meets every output."""
    return math.prod(size(d) for d in op.dims(op.arg(1))) * size(op.dims(op.arg(2))[-1])


def matmul(op: Op) -> Dims:
    """Stacks of matrices: the inner dimension is summed over, the outer ones are aligned."""
    return _stacked(op, op.arg(0), op.arg(1))


def _stacked(op: Op, x: fx.Node, y: fx.Node) -> Dims:
    a, b = op.dims(x), op.dims(y)
    attention_roles(a, b)
    op.contract(x, -1, y, -2 if len(b) > 1 else -1)
    batch = op.broadcast([a[:-2], b[:-2]], any_zero) if len(a) > 2 or len(b) > 2 else []
    rows = a[-2:-1] if len(a) > 1 else []
    columns = b[-1:] if len(b) > 1 else []
    return [*batch, *rows, *columns]


def attention_roles(a: Dims, b: Dims) -> None:
    """A product of stacks of matrices over free axes is attention: heads outside, the size of a head inside."""
    outer = [d for d in (*a[:-2], *b[:-2]) if axes.is_free(d.expr)]
    if not outer or len(a) < 2 or len(b) < 2:
        return
    for d in outer:
        axes.mark(d.expr, "heads")
    for d in (a[-1], b[-2], b[-1]):
        axes.mark(d.expr, "head size")


def any_zero(flags: list[bool | None]) -> bool:
    """A product vanishes where any factor does."""
    return any(flags)


def matmul_macs(op: Op, size: Size) -> int:
    """Every entry of the result sums over the inner dimension."""
    inner = size(op.dims(op.arg(0))[-1])
    return inner * math.prod(size(d) for d in _result(op))


def _result(op: Op) -> Dims:
    found: Any = op.facts.dims[op.node]
    return list(found)


RULES = {
    "linear": Rule(linear, macs=linear_macs),
    "addmm": Rule(addmm, macs=addmm_macs),
    "matmul": Rule(matmul, macs=matmul_macs),
    "baddbmm": Rule(baddbmm, macs=baddbmm_macs),
    "mm": Rule(matmul, macs=matmul_macs),
    "bmm": Rule(matmul, macs=matmul_macs),
    "mv": Rule(matmul, macs=matmul_macs),
    "dot": Rule(matmul, macs=matmul_macs),
    "vdot": Rule(matmul, macs=matmul_macs),
}
