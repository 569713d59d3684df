"""The axis algebra: what a dimension of a tensor is made of, and which indices of it may go.

A dimension is an *expression*: an :class:`Axis` (a set of n interchangeable indices), a :class:`Product`
(row-major, made by reshaping: hidden = heads x head size) or a :class:`Sum` (made by concatenation and by
splitting: qkv = q + k + v). :func:`unify` says that two dimensions are the same one; it refines axes by
union-find substitution, so that what one operation shows holds everywhere at once. :func:`freeze` says that
a dimension must stay whole, and why. :func:`kept` evaluates an expression on the kept indices of its axes.

Nothing here knows of tensors, operations or layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from luthier.model.expr import Axis, Expr, Indices, Product, Sum, find

__all__ = [
    "Axis",
    "Expr",
    "Indices",
    "Keep",
    "Product",
    "Sum",
    "find",
    "freeze",
    "is_free",
    "kept",
    "leaves",
    "length",
    "mark",
    "positions",
    "regroup",
    "split",
    "touches",
    "unify",
]

MOST_COPIES = 256
"""The largest outer factor of a product that is written out as a sum of copies."""


def leaves(e: Expr) -> Iterator[Axis]:
    """The axes an expression is made of, left to right, repeats included."""
    e = find(e)
    if isinstance(e, Axis):
        yield e
        return
    for part in e.parts:
        yield from leaves(part)


def is_free(e: Expr) -> bool:
    """Whether something of this dimension may be cut."""
    return any(a.why is None and a.size > 1 for a in leaves(e))


def freeze(e: Expr, why: object) -> list[Axis]:
    """Keeps a dimension whole; returns the axes that were free until now.

    Example:
        >>> a = Axis(4)
        >>> freeze(a, "the model's output"), freeze(a, "again"), a.why
        ([4!], [], "the model's output")
    """
    changed = [a for a in dict.fromkeys(leaves(e)) if a.why is None]
    for a in changed:
        a.why = why
    return changed


def mark(e: Expr, role: str) -> None:
    """Notes what the axes of a dimension are for ("head size", "statistics" ...)."""
    for a in leaves(e):
        a.roles.add(role)


def unify(p: Expr, q: Expr, why: object = "these dimensions do not line up") -> None:
    """Says that two dimensions are one and the same: cutting one cuts the other, at the same places.

    Args:
        p: one dimension; ``q``: the other, of the same size (a size of 1 broadcasts and ties nothing).
        q: the other.
        why: the reason given to axes that must freeze because the two cannot be made to agree.

    Example:
        >>> qkv, q, k, v = Axis(12), Axis(4), Axis(4), Axis(4)
        >>> unify(qkv, Sum([q, k, v]))
        >>> unify(q, Product([Axis(2), Axis(2)]))
        >>> find(qkv)
        ((2 x 2) + 4 + 4)
    """
    p, q = find(p), find(q)
    if p is q or p.size == 1 or q.size == 1:
        return
    if p.size != q.size:
        _clash(p, q, why)
    elif isinstance(p, Axis):
        _refine(p, q, why)
    elif isinstance(q, Axis):
        _refine(q, p, why)
    elif isinstance(p, Product) and isinstance(q, Product):
        _unify_products(p, q, why)
    elif isinstance(p, Sum) and isinstance(q, Sum):
        _unify_sums(p, q, why)
    else:
        product, other = (p, q) if isinstance(p, Product) else (q, p)
        copies = _written_out(product, why)
        if copies is None:
            _clash(p, q, why)
        else:
            unify(copies, other, why)


def _clash(p: Expr, q: Expr, why: object) -> None:
    freeze(p, why)
    freeze(q, why)


def _refine(a: Axis, e: Expr, why: object) -> None:
    if any(leaf is a for leaf in leaves(e)):
        freeze(e, why)
        return
    if a.why is not None:
        freeze(e, a.why)
    for role in a.roles:
        mark(e, role)
    a.merged = e


def _unify_products(p: Product, q: Product, why: object) -> None:
    a, b = list(p.parts), list(q.parts)
    while pair := _fronts(a, b, Product):
        f, g, a, b = pair
        if f.size == g.size:
            unify(f, g, why)
            continue
        if f.size % g.size or not isinstance(f, Axis):
            _clash(p, q, why)
            return
        inner = Axis(f.size // g.size)
        _refine(f, Product([g, inner]), why)
        a = [inner, *a]


def _unify_sums(p: Sum, q: Sum, why: object) -> None:
    a, b = list(p.parts), list(q.parts)
    while pair := _fronts(a, b, Sum):
        f, g, a, b = pair
        if f.size == g.size:
            unify(f, g, why)
        else:
            head, tail = split(f, g.size, why)
            unify(head, g, why)
            a = [tail, *a]


def _fronts(
    a: Sequence[Expr], b: Sequence[Expr], kind: type[Product] | type[Sum]
) -> tuple[Expr, Expr, list[Expr], list[Expr]] | None:
    """The first parts of two lists, nested ones opened, the larger one first, and what follows each."""
    while a and b:
        f, g = find(a[0]), find(b[0])
        if isinstance(f, kind):
            a = [*f.parts, *a[1:]]
        elif isinstance(g, kind):
            b = [*g.parts, *b[1:]]
        elif f.size < g.size:
            return g, f, list(b[1:]), list(a[1:])
        else:
            return f, g, list(a[1:]), list(b[1:])
    return None


def _written_out(p: Expr, why: object) -> Sum | None:
    """A product as a sum over its outer factor: (a + b) x rest = a x rest + b x rest.

    An outer axis k becomes k copies of the rest, which fixes it; None where it is too large for that.
    """
    if not isinstance(p, Product):
        return None
    outer, rest = find(p.parts[0]), p.parts[1:]
    if isinstance(outer, Sum):
        return Sum([Product([part, *rest]) for part in outer.parts])
    if not isinstance(outer, Axis) or outer.size > MOST_COPIES:
        return None
    freeze(outer, why)
    return Sum([Product(rest)] * outer.size)


def split(e: Expr, k: int, why: object = "split inside an axis") -> tuple[Expr, Expr]:
    """Splits a dimension after its first ``k`` indices.

    Returns:
        what the two parts are made of.

    Example:
        >>> head, tail = split(Sum([Axis(3), Axis(5)]), 3)
        >>> head, tail
        (3, 5)
    """
    e = find(e)
    if k <= 0:
        return Axis(0, why), e
    if k >= e.size:
        return e, Axis(0, why)
    if isinstance(e, Axis):
        head, tail = Axis(k), Axis(e.size - k)
        _refine(e, Sum([head, tail]), why)
        return head, tail
    return _split_product(e, k, why) if isinstance(e, Product) else _split_sum(e, k, why)


def _split_product(e: Product, k: int, why: object) -> tuple[Expr, Expr]:
    """Whole rows of the outer factor to either side, and the row that the split runs through, split itself."""
    rest = Product(e.parts[1:])
    rows, inside = divmod(k, rest.size)
    before, after = split(e.parts[0], rows, why)
    if not inside:
        return find(Product([before, rest])), find(Product([after, rest]))
    _, last = split(after, 1, why)
    left, right = split(rest, inside, why)
    return find(Sum([Product([before, rest]), left])), find(Sum([right, Product([last, rest])]))


def _split_sum(e: Sum, k: int, why: object) -> tuple[Expr, Expr]:
    rest, head = [find(part) for part in e.parts], []
    while rest and k:
        part = rest.pop(0)
        if part.size <= k:
            head.append(part)
            k -= part.size
        else:
            first, second = split(part, k, why)
            head.append(first)
            rest, k = [second, *rest], 0
    return find(Sum(head)), find(Sum(rest))


def regroup(dims: Sequence[Expr], sizes: Sequence[int], why: object = "a reshape that cuts across axes") -> list[Expr]:
    """Row-major reshape of a tensor with dimensions ``dims`` into ``sizes``; freezes all where it cannot follow.

    Example:
        >>> regroup([Axis(6), Axis(4)], [2, 3, 4])
        [2, 3, 4]
        >>> regroup([Axis(2), Axis(3), Axis(4)], [6, 4])
        [(2 x 3), 4]
    """
    rest = [e for e in (find(d) for d in dims) if e.size != 1]
    out: list[Expr] = []
    for size in sizes:
        taken = _take(rest, size, why) if size != 1 else [Axis(1, "a single index")]
        if taken is None:
            for d in dims:
                freeze(d, why)
            return [Axis(s, why) for s in sizes]
        out.append(find(Product(taken)) if len(taken) > 1 else taken[0])
    return out


def _take(rest: list[Expr], size: int, why: object) -> list[Expr] | None:
    """Takes factors worth ``size`` from the front of ``rest``, splitting the last one if needed."""
    taken: list[Expr] = []
    got = 1
    while got < size:
        if not rest or size % got:
            return None
        f = find(rest.pop(0))
        if isinstance(f, Product) and got * f.size > size:
            rest[:0] = f.parts
        elif got * f.size <= size:
            taken.append(f)
            got *= f.size
        else:
            pair = _factored(f, size // got, why)
            if pair is None:
                return None
            taken.append(pair[0])
            rest.insert(0, pair[1])
            got *= pair[0].size
    return taken if got == size else None


def _factored(f: Expr, outer: int, why: object) -> tuple[Expr, Expr] | None:
    """f as outer x inner, if it can be read so."""
    if f.size % outer:
        return None
    if isinstance(f, Axis):
        pair = Axis(outer), Axis(f.size // outer)
        _refine(f, Product(pair), why)
        return pair
    if isinstance(f, Sum):
        inner = Axis(f.size // outer)
        fixed = Axis(outer, why)
        unify(f, Sum([inner] * outer), why)
        return fixed, inner
    return None


Keep = Mapping[Axis, Indices]


def kept(e: Expr, keep: Keep) -> Indices:
    """The kept indices of a dimension, ascending within each axis.

    Args:
        e: the dimension's expression.
        keep: kept indices of the axes that are cut; an axis that is not named stays whole.

    Example:
        >>> heads, size = Axis(2), Axis(3)
        >>> kept(Product([heads, size]), {heads: np.array([1])}).tolist()
        [3, 4, 5]
    """
    e = find(e)
    if isinstance(e, Axis):
        return keep[e] if e in keep else np.arange(e.size)
    if isinstance(e, Sum):
        starts = np.cumsum([0, *(part.size for part in e.parts)])
        return np.concatenate([kept(part, keep) + at for part, at in zip(e.parts, starts, strict=False)])
    index = np.zeros(1, dtype=np.int64)
    for part in e.parts:
        index = (index[:, None] * part.size + kept(part, keep)[None, :]).reshape(-1)
    return index


def length(e: Expr, keep: Keep) -> int:
    """The size of a dimension after the cut, without listing its indices.

    Example:
        >>> heads = Axis(4)
        >>> length(Sum([Product([heads, Axis(8)]), Axis(3)]), {heads: np.array([0, 2])})
        19
    """
    e = find(e)
    if isinstance(e, Axis):
        return len(keep[e]) if e in keep else e.size
    sizes = [length(part, keep) for part in e.parts]
    return math.prod(sizes) if isinstance(e, Product) else sum(sizes)


def positions(e: Expr, axis: Axis) -> Indices:
    """For each index of a dimension, the index of ``axis`` that it belongs to, or -1 where it belongs to none.

    Example:
        >>> heads = Axis(2)
        >>> positions(Sum([Product([heads, Axis(2)]), Axis(1)]), heads).tolist()
        [0, 0, 1, 1, -1]
    """
    e = find(e)
    if isinstance(e, Axis):
        return np.arange(e.size) if e is axis else np.full(e.size, -1)
    if isinstance(e, Sum):
        return np.concatenate([positions(part, axis) for part in e.parts])
    out = np.full(1, -1)
    for part in e.parts:
        mine = positions(part, axis)
        out = np.maximum(out[:, None], mine[None, :]).reshape(-1)
    return out


def touches(e: Expr, axes: Mapping[Axis, Any] | set[Axis]) -> bool:
    """Whether any axis of a dimension is among ``axes``."""
    return any(a in axes for a in leaves(e))
