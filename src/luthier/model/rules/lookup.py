"""Looking up by index: what is indexed stays whole, the other dimensions pass through."""

from __future__ import annotations

from typing import Any

from torch import fx

from luthier.model.op import Dim, Dims, Op, Result, sizes
from luthier.model.rules import Rule


def index(op: Op) -> Dims:
    """x[i, j, ...] with tensors for indices: their broadcast shape takes the place of what they index."""
    x, which = op.dims(op.arg(0)), op.arg(1)
    at = [i for i, n in enumerate(which) if isinstance(n, fx.Node)]
    if any(len(op.dims(which[i])) == 0 for i in at) or _is_mask(which, at):
        return op.unknown()  # type: ignore[return-value]
    for i in at:
        op.freeze(x[i], "it is indexed")
    found = op.broadcast([op.dims(which[i]) for i in at], lambda flags: False)
    rest = [d for i, d in enumerate(x) if i not in at]
    place = at[0] if at == list(range(at[0], at[-1] + 1)) else 0
    return [*rest[:place], *(Dim(d.expr, False) for d in found), *rest[place:]]


def _is_mask(which: Any, at: list[int]) -> bool:
    return any(str(which[i].meta["val"].dtype) in ("torch.bool", "torch.uint8") for i in at)


def index_select(op: Op) -> Dims:
    """One dimension by a list of indices."""
    x = list(op.dims(op.arg(0)))
    at = op.arg(1, "dim") % len(x)
    op.freeze(x[at], "it is indexed")
    x[at] = op.fixed(op.shape[at], "it is indexed")
    return x


def gather(op: Op) -> Result:
    """Along one dimension an index decides; along the others the two tensors are aligned."""
    given = (op.arg(1, "dim"), op.arg(2, "index")) if op.name == "gather" else (op.arg(2, "dim"), op.arg(1, "indices"))
    if given[0] is None:
        return op.unknown()
    x, where = op.dims(op.arg(0)), op.dims(given[1])
    at = given[0] % max(len(x), 1)
    out: Dims = []
    for i, (d, e) in enumerate(zip(x, where, strict=True)):
        broadcast = op.name == "take_along_dim" and 1 in (d.size, e.size)
        if i != at and (d.size == e.size or broadcast):
            op.unify(d, e)
            out.append(d if d.size == op.shape[i] else Dim(e.expr, False))
        else:
            op.freeze(d, "it is indexed")
            op.freeze(e, "it indexes")
            out.append(op.fixed(op.shape[i], "it is indexed"))
    return out


def ordered(op: Op) -> Result:
    """Entries in order of size along one dimension, or the largest of them: it stays whole."""
    x = list(op.dims(op.arg(0)))
    at = op.arg(2 if op.name == "topk" else 1, "dim", -1)
    if not isinstance(at, int) or isinstance(at, bool) or not x:
        return op.unknown()
    value = op.node.meta["val"]
    op.freeze(x[at], f"a {op.name} along it")
    x[at] = op.fixed(sizes(value[0] if isinstance(value, tuple | list) else value)[at], f"a {op.name} along it")
    places = [Dim(d.expr, False) for d in x]
    return [x, places] if isinstance(value, tuple | list) else places


def triangle(op: Op) -> Dims:
    """Half of a matrix zeroed, by position: both of its dimensions stay whole."""
    x = list(op.dims(op.arg(0)))
    for d in x[-2:]:
        op.freeze(d, f"a {op.name} of it")
    return x


def rolled(op: Op) -> Dims:
    """Indices change places along the named dimensions: these stay whole."""
    x = list(op.dims(op.arg(0)))
    named = op.arg(2, "dims", []) if op.name == "roll" else op.arg(1, "dims", [])
    for i in named or range(len(x)):
        op.freeze(x[i], f"a {op.name} along it")
    return x


RULES = {
    "index": Rule(index),
    "index_select": Rule(index_select),
    "gather": Rule(gather),
    "take_along_dim": Rule(gather),
    **{name: Rule(ordered) for name in ("sort", "argsort", "topk")},
    **{name: Rule(triangle) for name in ("tril", "triu")},
    "roll": Rule(rolled),
    "flip": Rule(rolled),
}
