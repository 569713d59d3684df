"""Parametrised weights: weight norm keeps lengths apart from directions."""

from __future__ import annotations

from luthier.model.op import Dim, Dims, Op
from luthier.model.rules import Rule


def weight_norm(op: Op) -> Dims:
    """g v / |v|, one length per index of a dimension; the norms run over all the others.

    A masked index has no direction (0/0), so the dimension that keeps its lengths stays whole.
    """
    v, g = op.dims(op.arg(0)), op.dims(op.arg(1))
    at = op.arg(2, "dim", 0) % len(v)
    for i, (d, length) in enumerate(zip(v, g, strict=True)):
        op.unify(d, length)
        if i == at:
            op.freeze(d, "weight norm: a masked row has no direction; remove the parametrisation to cut it")
        elif not d.zero:
            op.freeze(d, "a norm over values that a mask does not make zero")
    return [Dim(d.expr, d.zero) for d in v]


RULES = {"_weight_norm": Rule(weight_norm)}
