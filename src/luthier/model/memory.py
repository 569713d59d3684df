"""Results that share memory: what one operation writes in place, all of them hold."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from luthier.model import axes
from luthier.model.axes import Axis
from luthier.model.op import Dim, Dims, Op


class Memory:
    """Which nodes so far look at the same memory."""

    def __init__(self) -> None:
        self._nodes: dict[int, list[fx.Node]] = defaultdict(list)

    def note(self, node: fx.Node) -> None:
        """Remembers where a node's results lie."""
        for place in _places(node):
            self._nodes[place].append(node)

    def written(self, op: Op) -> None:
        """After an operation in place: what does not vanish any more in its result, does not in any view of it."""
        if not _in_place(op.node):
            return
        target = op.node.args[0]
        before, after = op.dims(target), op.dims(op.node)
        kept = {a for d in after if d.zero for a in axes.leaves(d.expr)}
        lost = {a for d in before if d.zero for a in axes.leaves(d.expr)} - kept
        for place in _places(target) if lost else ():
            for node in self._nodes[place]:
                op.facts.dims[node] = _without(op.dims(node), lost) or op.facts.dims[node]


def _without(dims: Dims, lost: set[Axis]) -> Dims:
    return [Dim(d.expr, d.zero and not any(a in lost for a in axes.leaves(d.expr))) for d in dims]


def _in_place(node: fx.Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload) or not node.args or not isinstance(node.args[0], fx.Node):
        return False
    alias: Any = node.target._schema.arguments[0].alias_info
    return alias is not None and bool(alias.is_write)


def _places(node: object) -> Iterator[int]:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    for tensor in value if isinstance(value, tuple | list) else [value]:
        if isinstance(tensor, torch.Tensor):
            with contextlib.suppress(
                NotImplementedError
            ):  # of a function mapped over a batch: it cannot be looked into
                yield tensor.untyped_storage()._cdata
