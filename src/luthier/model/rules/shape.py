"""Reshaping and moving dimensions: reshapes refine axes into products, the rest only reorders."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from luthier.model import axes
from luthier.model.axes import Axis, Product
from luthier.model.op import Dim, Dims, Op
from luthier.model.rules import Rule

Size = Callable[[Any], int]


def reshape(op: Op) -> Dims:
    """A dimension of the result vanishes where it is cut if all that it is made of does."""
    source = op.dims(op.arg(0))
    if isinstance(op.arg(1), torch.dtype):
        return _reread(op, source)
    why = op.because("a reshape that cuts across axes")
    exprs = axes.regroup([d.expr for d in source], op.shape, why)
    return [Dim(e, _vanishes(e, source)) for e in exprs]


def _reread(op: Op, source: Dims) -> Dims:
    """The same bytes as another type: where that has another size, the last dimension is another one."""
    if op.shape == [d.size for d in source]:
        return source
    op.freeze(source[-1], "its bytes are read as another type")
    return [*source[:-1], op.fixed(op.shape[-1])]


def _vanishes(e: axes.Expr, source: Dims) -> bool:
    mine = set(axes.leaves(e))
    return all(d.zero for d in source if axes.is_free(d.expr) and any(a in mine for a in axes.leaves(d.expr)))


def rewrite_sizes(op: Op, node: fx.Node, size: Size) -> None:
    """The size argument of view, reshape and expand."""
    result: Any = op.facts.dims[op.node]
    if not isinstance(op.arg(1), torch.dtype):
        node.update_arg(1, new_sizes(node, node.args[1], result, size))


def new_sizes(node: fx.Node, old: Any, dims: Dims, size: Size) -> list[Any]:
    """Sizes after the cut: those of whole dimensions stay as they were written, symbolic ones are scaled."""
    out: list[Any] = []
    for value, dim in zip(old, dims, strict=True):
        new = size(dim)
        if new == dim.size or (isinstance(value, int) and value == -1):
            out.append(value)
        elif isinstance(value, fx.Node):
            out.append(_scaled(node, value, new, dim.size))
        else:
            out.append(new)
    return out


def _scaled(node: fx.Node, value: fx.Node, new: int, old: int) -> fx.Node:
    with node.graph.inserting_before(node):
        product = node.graph.call_function(operator.mul, (value, new))
        return node.graph.call_function(operator.floordiv, (product, old))


def unflatten(op: Op) -> Dims:
    """One dimension read as several."""
    return reshape(op)


def rewrite_unflatten(op: Op, node: fx.Node, size: Size) -> None:
    """The sizes of the new dimensions."""
    result: Any = op.facts.dims[op.node]
    at = op.arg(1) % len(op.dims(op.arg(0)))
    count = len(op.arg(2))
    node.update_arg(2, new_sizes(node, node.args[2], result[at : at + count], size))


def permute(op: Op) -> Dims:
    """Another order."""
    x = op.dims(op.arg(0))
    return [x[i] for i in op.arg(1, "dims")]


def transpose(op: Op) -> Dims:
    """Two dimensions change places."""
    x = list(op.dims(op.arg(0)))
    i, j = op.arg(1, "dim0"), op.arg(2, "dim1")
    x[i], x[j] = x[j], x[i]
    return x


def reverse(op: Op) -> Dims:
    """All dimensions in reverse order."""
    return list(reversed(op.dims(op.arg(0))))


def swap_last(op: Op) -> Dims:
    """The last two change places."""
    x = list(op.dims(op.arg(0)))
    x[-1], x[-2] = x[-2], x[-1]
    return x


def movedim(op: Op) -> Dims:
    """Dimensions moved to other places."""
    x = op.dims(op.arg(0))
    source, target = (_listed(op.arg(i)) for i in (1, 2))
    at = {t % len(x): s % len(x) for s, t in zip(source, target, strict=True)}
    rest = iter(i for i in range(len(x)) if i not in at.values())
    return [x[at[i]] if i in at else x[next(rest)] for i in range(len(x))]


def _listed(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


def unsqueeze(op: Op) -> Dims:
    """A new single index."""
    x = list(op.dims(op.arg(0)))
    i = op.arg(1, "dim")
    x.insert(i if i >= 0 else i + len(x) + 1, op.fixed(1))
    return x


def squeeze(op: Op) -> Dims:
    """Single indices dropped."""
    x = op.dims(op.arg(0))
    if len(op.node.args) == 1 and "dim" not in op.node.kwargs:
        return [d for d in x if d.size != 1]
    which = {i % len(x) for i in _listed(op.arg(1, "dim"))}
    return [d for i, d in enumerate(x) if not (i in which and d.size == 1)]


def rewrite_squeeze(op: Op, node: fx.Node, size: Size) -> None:
    """A dimension that is one wide after the cut only must not be dropped."""
    x = op.dims(op.arg(0))
    if any(d.size != 1 and size(d) == 1 for d in x):
        named = op.arg(1, "dim")
        which = range(len(x)) if named is None else (i % len(x) for i in _listed(named))
        node.target = getattr(torch.ops.aten, op.name).dims
        node.args, node.kwargs = (node.args[0], [i for i in which if x[i].size == 1]), {}


def expand(op: Op) -> Dims:
    """A broadcast dimension becomes an axis of its own, whose entries are copies and vanish nowhere."""
    x = op.dims(op.arg(0))
    x = [*(op.fixed(1) for _ in range(len(op.shape) - len(x))), *x]
    return [d if d.size == s else Dim(Axis(s), False) for d, s in zip(x, op.shape, strict=True)]


def expand_as(op: Op) -> Dims:
    """Broadcast to another tensor's sizes."""
    x, target = op.dims(op.arg(0)), op.dims(op.arg(1))
    x = [*(op.fixed(1) for _ in range(len(target) - len(x))), *x]
    for d, t in zip(x, target, strict=True):
        op.unify(d, t)
    return [d if d.size == t.size else Dim(t.expr, False) for d, t in zip(x, target, strict=True)]


def reshape_as(op: Op) -> Dims:
    """Read with another tensor's sizes, which must stay the same as its own."""
    out = reshape(op)
    for d, t in zip(out, op.dims(op.arg(1)), strict=True):
        op.unify(d, t)
    return out


def repeat(op: Op) -> Dims:
    """Copies laid end to end: copies x dimension."""
    x = op.dims(op.arg(0))
    counts = list(op.arg(1))
    counts = [1] * (len(x) - len(counts)) + counts
    x = [*(op.fixed(1) for _ in range(len(counts) - len(x))), *x]
    out: Dims = []
    for d, size in zip(x, op.shape, strict=True):
        copies = size // d.size if d.size else 1
        out.append(d if copies == 1 else Dim(Product([Axis(copies, op.because("copies")), d.expr]), d.zero))
    return out


def repeat_interleave(op: Op) -> Dims:
    """Each entry several times in a row: dimension x copies."""
    x = list(op.dims(op.arg(0)))
    count, dim = op.arg(1, "repeats"), op.arg(2, "dim")
    if not isinstance(count, int) or dim is None:
        return op.unknown()  # type: ignore[return-value]
    d = x[dim]
    x[dim] = Dim(Product([d.expr, Axis(count, op.because("copies"))]), d.zero)
    return x


def rewrite_interleaved(op: Op, node: fx.Node, size: Size) -> None:
    """The size that was said in advance."""
    result: Any = op.facts.dims[op.node]
    if isinstance(op.arg(3, "output_size"), int):
        node.update_kwarg("output_size", size(result[op.arg(2, "dim")]))


def flatten(op: Op) -> Dims:
    """Several dimensions read as one."""
    return reshape(op)


RULES = {
    **{name: Rule(reshape, rewrite_sizes) for name in ("view", "reshape", "_unsafe_view")},
    "reshape_as": Rule(reshape_as),
    "view_as": Rule(reshape_as),
    "flatten": Rule(flatten),
    "unflatten": Rule(unflatten, rewrite_unflatten),
    "permute": Rule(permute),
    **{name: Rule(transpose) for name in ("transpose", "swapaxes", "swapdims", "transpose_")},
    **{name: Rule(reverse) for name in ("t", "numpy_T")},
    **{name: Rule(swap_last) for name in ("mT", "adjoint", "matrix_H")},
    **{name: Rule(movedim) for name in ("movedim", "moveaxis")},
    "unsqueeze": Rule(unsqueeze),
    "unsqueeze_": Rule(unsqueeze),
    **{name: Rule(squeeze, rewrite_squeeze) for name in ("squeeze", "squeeze_")},
    "expand": Rule(expand, rewrite_sizes),
    "expand_as": Rule(expand_as),
    "repeat": Rule(repeat),
    "tile": Rule(repeat),
    "repeat_interleave": Rule(repeat_interleave, rewrite_interleaved),
}
