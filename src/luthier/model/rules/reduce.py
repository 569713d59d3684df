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
_SCALING = {*SUMS, *QUOTIENTS, *PRODUCTS, "rsqrt", "sqrt", "pow", "clamp", "clamp_min", "reciprocal", "to", "detach"}
"""What may lie between a spread and the division by it."""


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
    """Whether this is the shift or the scale of a normalisation: (x - mean) / sqrt(mean square + e).

    Other uses of a mean (gates, pooling over channels, responses relative to the mean) change their meaning with
    the number of channels.
    """
    origin = _origin(op.arg(0))
    if op.name == "mean" and not _is_square(op.arg(0)):
        return _only_shifts(op.node, origin)
    if op.name in ("var_mean", "std_mean"):
        return True
    return _scales(op.node, origin, op.name == "std")


def _is_square(node: Any) -> bool:
    if isinstance(node, fx.Node) and _name(node) in ("to", "detach"):
        return _is_square(node.args[0])
    if not isinstance(node, fx.Node):
        return False
    doubled = _name(node) == "mul" and node.args[0] is node.args[1]
    return doubled or _name(node) == "square" or (_name(node) == "pow" and node.args[1] in (2, 2.0))


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "_opname", "getitem" if node.target is operator.getitem else ""))


def _only_shifts(mean: fx.Node, origin: fx.Node) -> bool:
    """Whether a mean is only subtracted from what it is the mean of, which is squared and averaged too."""
    users = list(mean.users)
    shifted = [u for u in users if _name(u) == "sub" and _origin(u.args[0]) is origin and u.args[1] is mean]
    squares = [v for u in shifted for v in u.users if _is_square(v)]
    spreads = [v for v in _near(origin) if _name(v) in ("var", "std")]
    return bool(users) and len(shifted) == len(users) and bool(squares or spreads)


def _near(node: fx.Node) -> set[fx.Node]:
    return {v for u in node.users for v in (u, *u.users)}


def _scales(statistic: fx.Node, origin: fx.Node, rooted: bool) -> bool:
    """Whether a spread only reaches, through a root, what it is the spread of, and divides it."""
    todo: list[tuple[fx.Node, bool]] = [(statistic, rooted)]
    while todo:
        node, root = todo.pop()
        for user in node.users:
            name = _name(user)
            others = [a for a in user.args if isinstance(a, fx.Node) and a is not node]
            if root and name in ("mul", "div") and any(_origin(a) is origin for a in others):
                continue
            if name not in _SCALING or others:
                return False
            todo.append((user, root or name in ("rsqrt", "sqrt") or (name == "pow" and user.args[1] in (0.5, -0.5))))
    return bool(statistic.users)


def _origin(node: Any) -> fx.Node:
    """The tensor itself, behind squares, shifts and casts."""
    while isinstance(node, fx.Node) and _name(node) in ("pow", "square", "to", "abs", "detach", "sub", "mul"):
        if _name(node) == "mul" and node.args[0] is not node.args[1]:
            break
        node = node.args[0]
    found: fx.Node = node
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
