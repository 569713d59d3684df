"""Reductions: a dimension that is summed away must vanish where it is cut, or stay whole."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from luthier.model import axes
from luthier.model.op import Dim, Dims, Op, Result
from luthier.model.rules import Rule
from luthier.model.rules.elementwise import PRODUCTS, QUOTIENTS, SUMS, other

_EXACT = ("sum", "linalg_vector_norm", "norm", "frobenius_norm", "nansum")
"""Zeros add nothing to these."""
_STATISTICS = ("mean", "var", "std", "var_mean", "std_mean")
_SCALING = {
    *SUMS,
    "rsqrt",
    "sqrt",
    "pow",
    "clamp",
    "clamp_min",
    "reciprocal",
    "to",
    "neg",
    "detach",
    "exp",
    "log",
    *QUOTIENTS,
    *PRODUCTS,
}


def reduce(op: Op) -> Result:
    """Drops or shrinks dimensions."""
    x = op.dims(op.arg(0))
    if isinstance(op.arg(1), fx.Node):
        return other(op)
    if op.name in ("norm", "linalg_vector_norm"):
        which, keep = op.arg(2, "dim"), op.arg(3, "keepdim", False)
        exact = op.arg(1, "p" if op.name == "norm" else "ord", 2) not in (0, float("-inf"))
    else:
        which, keep, exact = (
            op.arg(1, "dim"),
            op.arg(2, "keepdim", op.node.kwargs.get("keepdim", False)),
            op.name in _EXACT,
        )
    gone = set(range(len(x))) if which is None or which == [] else {i % len(x) for i in _listed(which)}
    dims = [x[i] for i in gone]
    _check(op, dims, exact)
    kept = [
        op.fixed(1) if i in gone else Dim(d.expr, d.zero and _stays(op))
        for i, d in enumerate(x)
        if keep or i not in gone
    ]
    value = op.node.meta["val"]
    return [list(kept) for _ in value] if isinstance(value, tuple | list) else kept


def _stays(op: Op) -> bool:
    """Whether an all-zero slice reduces to zero."""
    return op.name not in ("argmax", "argmin", "logsumexp", "all", "any")


def _listed(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


def _check(op: Op, dims: list[Dim], exact: bool) -> None:
    """Zeros add nothing to a sum; a mean over what is left is allowed where it normalises; all else stays whole."""
    free = [d for d in dims if axes.is_free(d.expr)]
    if not free or (exact and all(d.zero for d in free)):
        return
    if op.name in _STATISTICS and _normalises(op):
        op.statistic(free)
        return
    for d in free:
        op.freeze(d, f"a {op.name} over it")


def _normalises(op: Op) -> bool:
    """Whether this statistic only shifts or scales the tensor it was taken of, as a normalisation does."""
    origin = _origin(op.arg(0))
    todo, seen = [op.node], set[fx.Node]()
    while todo:
        node = todo.pop()
        for user in node.users:
            if user in seen:
                continue
            seen.add(user)
            name = getattr(user.target, "_opname", "getitem" if user.target is operator.getitem else "")
            if name == "getitem":
                todo.append(user)
            elif name not in _SCALING:
                return False
            elif not _applied(user, node, origin):
                todo.append(user)
    return True


def _origin(node: Any) -> fx.Node:
    """The tensor itself, behind squares, shifts and casts."""
    while isinstance(node, fx.Node) and getattr(node.target, "_opname", "") in (
        "pow",
        "mul",
        "square",
        "to",
        "abs",
        "detach",
    ):
        node = node.args[0]
    found: fx.Node = node
    return found


def _applied(user: fx.Node, statistic: fx.Node, origin: fx.Node) -> bool:
    """Whether ``user`` combines the statistic with the tensor it was taken of (or a shifted copy of it)."""
    others = [a for a in user.args if isinstance(a, fx.Node) and a is not statistic]
    return any(_origin(a) is origin or origin in _ancestors(a) for a in others)


def _ancestors(node: fx.Node, depth: int = 4) -> set[fx.Node]:
    found = {node}
    for _ in range(depth):
        found |= {n for f in found for n in f.all_input_nodes}
    return found


def softmax(op: Op) -> Dims:
    """Every entry depends on all: the dimension stays whole."""
    x = list(op.dims(op.arg(0)))
    op.freeze(x[op.arg(1, "dim")], f"a {op.name} over it")
    return [Dim(d.expr, False) for d in x]


RULES = {
    **{
        name: Rule(reduce)
        for name in (
            *_EXACT,
            *_STATISTICS,
            "amax",
            "amin",
            "max",
            "min",
            "prod",
            "logsumexp",
            "argmax",
            "argmin",
            "all",
            "any",
        )
    },
    **{name: Rule(softmax) for name in ("softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "cumprod")},
}
