"""Outputs side by side: the leaves of nested results, and how far two of them are apart."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

SAME = 1e-4
"""Largest relative difference of two computations in single precision."""


def flat(value: Any) -> list[Any]:
    """The leaves of a nested result; a dataclass counts by its fields."""
    leaves = pytree.tree_leaves(value)
    if len(leaves) == 1 and leaves[0] is value and hasattr(value, "__dict__") and not isinstance(value, torch.Tensor):
        return flat([v for v in vars(value).values() if v is not None])
    return list(leaves)


def difference(a: Sequence[Any], b: Sequence[Any]) -> float:
    """The largest difference of two results, relative to the larger entries of the second; infinite if shapes differ.

    Example:
        >>> difference([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 4.0])])
        0.5
    """
    xs, ys = ([t for t in side if isinstance(t, torch.Tensor)] for side in (a, b))
    if [t.shape for t in xs] != [t.shape for t in ys]:
        return math.inf
    return max((_relative(x, y) for x, y in zip(xs, ys, strict=True) if x.numel()), default=0.0)


def _relative(x: torch.Tensor, y: torch.Tensor) -> float:
    if not y.is_floating_point():
        return float(not torch.equal(x, y))
    same = (x == y) | (x.isnan() & y.isnan())
    if bool(same.all()):
        return 0.0
    finite = y.abs().masked_fill(~y.isfinite(), 0.0).max()
    gap = (x.double() - y.double()).abs().masked_fill(same, 0.0).max()
    return float(gap / finite.double().clamp_min(1e-12))


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """Networks that draw random numbers draw the same ones; the global stream is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
