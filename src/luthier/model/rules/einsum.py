"""Einstein summation: equal letters are equal dimensions, a letter that is missing from the result is summed over."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import fx

from luthier.model.op import Dim, Dims, Op
from luthier.model.rules import Rule

Size = Callable[[Any], int]


def einsum(op: Op) -> Dims:
    """One axis per letter."""
    nodes, terms, result = _parsed(op)
    if "." in result or any("." in t for t in terms) or any(len(set(t)) != len(t) for t in terms):
        return op.unknown()  # type: ignore[return-value]
    found: dict[str, Dim] = {}
    for node, term in zip(nodes, terms, strict=True):
        for letter, dim in zip(term, op.dims(node), strict=True):
            if letter in found and found[letter].size != 1:
                op.unify(found[letter], dim)
                found[letter] = Dim(found[letter].expr, found[letter].zero or dim.zero)
            else:
                found[letter] = dim
    for letter, dim in found.items():
        if letter not in result:
            if not dim.zero:
                op.freeze(dim, "a sum over values that a mask does not make zero")
            first = next(i for i, t in enumerate(terms) if letter in t)
            op.facts.contracted.append((nodes[first], terms[first].index(letter)))
    return [found[letter] for letter in result]


def _parsed(op: Op) -> tuple[list[fx.Node], list[str], str]:
    nodes: list[fx.Node] = list(op.arg(1))
    left, arrow, right = str(op.arg(0)).replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        letters = sorted(set(left.replace(",", "")))
        right = "".join(c for c in letters if left.count(c) == 1)
    return nodes, terms, right


def macs(op: Op, size: Size) -> int:
    """Two operands: every combination of the letters that they share or keep; nothing where there is no sum."""
    nodes, terms, result = _parsed(op)
    if len(terms) != 2 or "." in result:
        return 0
    sizes = {c: size(d) for n, t in zip(nodes, terms, strict=True) for c, d in zip(t, op.dims(n), strict=True)}
    shared = {c for c in sizes if c in result or all(c in t for t in terms)}
    summed = math.prod(sizes[c] for c in shared if c not in result)
    return math.prod(sizes[c] for c in shared) if summed > 1 else 0


RULES = {"einsum": Rule(einsum, macs=macs)}
