"""Einstein summation: equal letters are equal dimensions, a letter that is missing from the result is summed over."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import fx

from luthier.model.op import Dim, Dims, Op
from luthier.model.rules import Rule

Size = Callable[[Any], int]
_SPARE = 0x4E00
"""The first of the letters that stand for what an ellipsis leaves out: none that anybody writes."""


def einsum(op: Op) -> Dims:
    """One axis per letter; a letter that comes twice in one term is a diagonal, a single index broadcasts."""
    nodes, terms, result = _parsed(op)
    found: dict[str, Dim] = {}
    for node, term in zip(nodes, terms, strict=True):
        for letter, dim in zip(term, op.dims(node), strict=True):
            if letter not in found or found[letter].size == 1:
                found[letter] = dim
            elif dim.size != 1:
                op.unify(found[letter], dim)
                found[letter] = Dim(found[letter].expr, found[letter].zero or dim.zero)
    for letter, dim in found.items():
        if letter not in result:
            if not dim.zero:
                op.freeze(dim, "a sum over values that a mask does not make zero")
            first = next(i for i, t in enumerate(terms) if letter in t)
            op.facts.contracted.append((nodes[first], terms[first].index(letter), dim.expr))
    return [found[letter] for letter in result]


def _parsed(op: Op) -> tuple[list[fx.Node], list[str], str]:
    """The operands, a letter for each of their dimensions, and those of the result."""
    nodes: list[fx.Node] = list(op.arg(1))
    left, arrow, right = str(op.arg(0)).replace(" ", "").partition("->")
    terms = left.split(",")
    spare = [len(op.dims(n)) - len(t) + 3 if "." in t else 0 for n, t in zip(nodes, terms, strict=True)]
    dots = "".join(chr(_SPARE + i) for i in range(max(spare)))
    if not arrow:
        letters = sorted(set(left) - {",", "."})
        right = "..." + "".join(c for c in letters if left.count(c) == 1)
    written = [t.replace("...", dots[len(dots) - n :]) for t, n in zip(terms, spare, strict=True)]
    return nodes, written, right.replace("...", dots)


def macs(op: Op, size: Size) -> int:
    """Two operands: every combination of the letters that they share or keep; nothing where there is no sum."""
    nodes, terms, result = _parsed(op)
    if len(terms) != 2:
        return 0
    sizes: dict[str, int] = {}
    for n, t in zip(nodes, terms, strict=True):
        for c, d in zip(t, op.dims(n), strict=True):
            sizes[c] = max(size(d), sizes.get(c, 1))
    shared = {c for c in sizes if c in result or all(c in t for t in terms)}
    summed = math.prod(sizes[c] for c in shared if c not in result)
    return math.prod(sizes[c] for c in shared) if summed > 1 else 0


RULES = {"einsum": Rule(einsum, macs=macs)}
