"""Bilinear layers: x w y + b, one matrix for each output."""

from __future__ import annotations

from torch import fx

from luthier.model.op import Dims, Op
from luthier.model.rules import Rule
from luthier.model.rules.linear import added_bias, biased


def bilinear(op: Op) -> Dims:
    """The features of both inputs are summed over; the weight is [outputs, features of x, features of y]."""
    x, y, w, bias = (op.arg(i) for i in range(4))
    op.contract(x, -1, w, 1)
    op.contract(y, -1, w, 2)
    batch = op.broadcast([op.dims(x)[:-1], op.dims(y)[:-1]], any) if len(op.dims(x)) > 1 else []
    out = op.dims(w)[0]
    if not isinstance(bias, fx.Node):
        return [*batch, out]
    return [*biased(batch), added_bias(op, out, op.dims(bias)[0])]


RULES = {"bilinear": Rule(bilinear)}
