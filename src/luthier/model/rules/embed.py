"""Tables and fillers: an embedding's rows are its vocabulary; constant fill takes any size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from luthier.model.axes import Axis
from luthier.model.op import Dim, Dims, Op, Result
from luthier.model.rules import Rule
from luthier.model.rules.shape import new_sizes

Size = Callable[[Any], int]


def embedding(op: Op) -> Dims:
    """Rows are looked up, so they stay; the width is free."""
    table, index = op.dims(op.arg(0)), op.dims(op.arg(1))
    op.freeze(table[0], "a vocabulary")
    return [*index, table[1]]


def filled(op: Op) -> Result:
    """One value everywhere: each dimension is an axis of its own, free until something holds it."""
    zero = op.name in ("zeros", "new_zeros")
    return [Dim(Axis(s), zero) for s in op.shape]


def rewrite_filled(op: Op, node: fx.Node, size: Size) -> None:
    """The sizes to fill."""
    result: Any = op.facts.dims[op.node]
    at = 1 if op.name.startswith("new_") else 0
    node.update_arg(at, new_sizes(node, node.args[at], result, size))


RULES = {
    "embedding": Rule(embedding),
    **{
        name: Rule(filled, rewrite_filled)
        for name in ("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty")
    },
}
