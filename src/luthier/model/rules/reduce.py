"""Reductions: a dimension that is summed away must vanish where it is cut, or stay whole."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from luthier.model import axes
from luthier.model.op import Dim, Dims, Op, Result
from luthier.model.rules import Rule
from luthier.model.rules.elementwise import other
from luthier.model.rules.linear import biased

_EXACT = ("sum", "linalg_vector_norm", "norm", "frobenius_norm", "nansum")
"""Zeros add nothing to these."""
_STATISTICS = ("mean", "var", "std", "var_mean", "std_mean")
_BETWEEN = ("add", "sub", "mul", "div", "add_", "mul_", "div_", "clamp", "clamp_min", "to", "detach")
"""What may lie, with numbers, between a spread and the division by it, besides the root."""


def reduce(op: Op) -> Result:
    """Drops or shrinks dimensions."""
    x = op.dims(op.arg(0))
    if isinstance(op.arg(1), fx.Node):
        return other(op)
    powers = op.name in ("norm", "linalg_vector_norm")
    which = op.arg(2 if powers else 1, "dim")
    every = which is None or isinstance(which, bool) or which == []
    gone = set(range(len(x))) if every or not x else {i % len(x) for i in _listed(which)}
    _check(op, [x[i] for i in gone], _adds_up(op, powers))
    value = op.node.meta["val"]
    several = isinstance(value, tuple | list)
    keep = (value[0] if several else value).dim() == len(x)
    first = [
        op.fixed(1) if i in gone else Dim(d.expr, d.zero and _stays(op))
        for i, d in enumerate(x)
        if keep or i not in gone
    ]
    return [first, biased(first)] if several else first


def _adds_up(op: Op, powers: bool) -> bool:
    """Whether zeros add nothing."""
    power = op.arg(1, "p" if op.name == "norm" else "ord", 2) if powers else None
    return op.name in _EXACT and (not isinstance(power, int | float) or power > 0)


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
    origin, rooted = _origin(op.arg(0)), 1 if op.name.startswith("std") else 0
    if op.name in ("var_mean", "std_mean"):
        parts = {node.args[1]: node for node in op.node.users}
        return 0 in parts and _scales(parts[0], origin, rooted) and (1 not in parts or _shifted(parts[1], origin) != [])
    if op.name == "mean" and not _is_square(op.arg(0)):
        return _only_shifts(op.node, origin)
    return _scales(op.node, origin, rooted)


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
    squares = [v for u in _shifted(mean, origin) for v in u.users if _is_square(v)]
    averaged = [v for square in squares for v in square.users if _name(v) == "mean"]
    spreads = [v for v in _near(origin) if _name(v) in ("var", "std")]
    return bool(_shifted(mean, origin)) and bool(averaged or spreads)


def _shifted(mean: fx.Node, origin: fx.Node) -> list[fx.Node]:
    """Where a mean is subtracted from what it is the mean of; none if it has any other use."""
    found = [u for u in mean.users if _name(u) == "sub" and _origin(u.args[0]) is origin and u.args[1] is mean]
    return found if len(found) == len(mean.users) else []


def _near(node: fx.Node) -> set[fx.Node]:
    return {v for u in node.users for v in (u, *u.users)}


def _scales(statistic: fx.Node, origin: fx.Node, rooted: int) -> bool:
    """Whether a spread only reaches, through a root, what it is the spread of, and divides it.

    ``rooted`` is 1 behind a root, -1 behind one over it, 0 before.
    """
    todo: list[tuple[fx.Node, int]] = [(statistic, rooted)]
    while todo:
        node, root = todo.pop()
        for user in node.users:
            name = _name(user)
            others = [a for a in user.args if isinstance(a, fx.Node) and a is not node]
            divides = (name == "mul" and root == -1) or (name == "div" and root == 1 and user.args[1] is node)
            if divides and any(_origin(a) is origin for a in others):
                continue
            power = _root(user, root)
            if power is None or others:
                return False
            todo.append((user, power))
    return bool(statistic.users)


def _root(user: fx.Node, root: int) -> int | None:
    """What becomes of a root; None where it is none any more."""
    name = _name(user)
    if name in _BETWEEN:
        return root
    if name == "reciprocal":
        return -root if root else None
    exponent = {"sqrt": 0.5, "rsqrt": -0.5}.get(name, user.args[1] if name == "pow" else None)
    return {0.5: 1, -0.5: -1}.get(exponent) if root == 0 and isinstance(exponent, float) else None


def _origin(node: Any) -> fx.Node:
    """The tensor itself, behind squares, shifts by its mean, and casts."""
    while isinstance(node, fx.Node) and (_name(node) in ("to", "abs", "detach") or _is_square(node) or _is_shift(node)):
        node = node.args[0]
    found: fx.Node = node
    return found


def _is_shift(node: fx.Node) -> bool:
    if _name(node) != "sub" or not isinstance(node.args[1], fx.Node):
        return False
    mean = node.args[1]
    if _name(mean) == "getitem" and mean.args[1] == 1:
        mean = mean.args[0]  # type: ignore[assignment]
    names = ("mean", "var_mean", "std_mean")
    return _name(mean) in names and _origin(mean.args[0]) is _origin(node.args[0])


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
