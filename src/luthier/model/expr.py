"""What a dimension is made of: axes, products and sums of them, and their present form."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


class Axis:
    """A set of ``size`` interchangeable indices: cutting any subset of them everywhere leaves a working network.

    Args:
        size: how many indices there are.
        why: None for a free axis, or the reason why it must stay whole.

    Example:
        >>> Axis(8), Axis(4, "the model's input")
        (8, 4!)
    """

    __slots__ = ("merged", "roles", "size", "why")

    def __init__(self, size: int, why: object = None) -> None:
        self.size = size
        self.why = why
        self.merged: Expr | None = None
        self.roles: set[str] = set()

    def __repr__(self) -> str:
        if self.merged is not None:
            return repr(find(self))
        return f"{self.size}{'' if self.why is None else '!'}"


class Product:
    """A row-major grid of indices: the last factor runs fastest."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: Sequence[Expr]) -> None:
        self.parts: tuple[Expr, ...] = tuple(parts)
        self.size: int = math.prod(part.size for part in self.parts)

    def __repr__(self) -> str:
        return "(" + " x ".join(map(repr, self.parts)) + ")"


class Sum:
    """Indices laid end to end."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: Sequence[Expr]) -> None:
        self.parts: tuple[Expr, ...] = tuple(parts)
        self.size: int = sum(part.size for part in self.parts)

    def __repr__(self) -> str:
        return "(" + " + ".join(map(repr, self.parts)) + ")"


Expr = Axis | Product | Sum


def find(e: Expr) -> Expr:
    """The expression's present form: substitutions followed, nested products and sums flattened, units dropped.

    Example:
        >>> a = Axis(6)
        >>> a.merged = Product([Axis(2), Axis(3)])
        >>> find(a)
        (2 x 3)
    """
    if isinstance(e, Axis):
        return e if e.merged is None else _followed(e)
    parts = [find(part) for part in e.parts]
    kind = type(e)
    if any(isinstance(part, kind) or (kind is Product and part.size == 1) or part.size == 0 for part in parts):
        parts = _flat(kind, parts)
    elif all(new is old for new, old in zip(parts, e.parts, strict=True)) and len(parts) > 1:
        return e
    if not parts:
        return Axis(e.size, "a single index")
    return parts[0] if len(parts) == 1 else kind(parts)


def _followed(axis: Axis) -> Expr:
    """The end of a chain of substitutions, which grows with the network's depth; it is shortened for the next time."""
    chain: list[Axis] = []
    end: Expr = axis
    while isinstance(end, Axis) and end.merged is not None:
        chain.append(end)
        end = end.merged
    found = find(end)
    for a in chain:
        a.merged = found
    return found


def _flat(kind: type[Product] | type[Sum], parts: Sequence[Expr]) -> list[Expr]:
    out: list[Expr] = []
    for part in parts:
        if isinstance(part, kind):
            out.extend(part.parts)
        elif not (kind is Product and part.size == 1) and not (kind is Sum and part.size == 0):
            out.append(part)
    return out
