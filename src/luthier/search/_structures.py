"""Orders and selections as rows of numbers: snapping, moves, crossing, and what a kernel sees of them.

A row of a permutation holds each item's place, as the middle of one of k stretches of [0, 1]. A row of a subset holds
the size likewise, then 0.75 for each item that is in and 0.25 for each that is out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luthier.parameters import Permutation, Structure, Subset
from luthier.pareto import Array

Whole = NDArray[np.int64]
Mask = NDArray[np.bool_]

_IN, _OUT = 0.75, 0.25


@dataclass(frozen=True)
class Block:
    """The columns of one structure.

    Attributes:
        place: its columns.
        parameter: the structure.
    """

    place: slice
    parameter: Structure

    @property
    def k(self) -> int:
        """How many items there are."""
        return len(self.parameter.items)

    @property
    def ordered(self) -> bool:
        """Whether it is an order, not a selection."""
        return isinstance(self.parameter, Permutation)

    @property
    def sizes(self) -> tuple[int, int]:
        """Fewest and most items of a value."""
        return (self.parameter.min, self.parameter.max) if isinstance(self.parameter, Subset) else (self.k, self.k)

    def snap(self, keys: Array) -> Array:
        """Rows of values from any keys in [0, 1), shape (n, columns)."""
        if self.ordered:
            return rows_of_places(ranks(keys))
        low, high = self.sizes
        size = low + np.minimum((keys[:, 0] * (high - low + 1)).astype(np.int64), high - low)
        return self.rows_of_members(ranks(-keys[:, 1:]) < size[:, None])

    def rows_of_members(self, members: Mask) -> Array:
        """Rows of selections, shape (n, k + 1), from masks of shape (n, k)."""
        low, high = self.sizes
        size = (members.sum(1) - low + 0.5) / (high - low + 1)
        return np.column_stack([size, np.where(members, _IN, _OUT)])

    def move(self, rows: Array, generator: np.random.Generator) -> Array:
        """A neighbour of each snapped row: swap, insertion or reversal; an item in, out, or one for another."""
        if self.ordered:
            return rows_of_places(_moved_orders(places(rows), generator))
        return self.rows_of_members(_moved_members(rows[:, 1:] > 0.5, self.sizes, generator))

    def cross(self, a: Array, b: Array, generator: np.random.Generator) -> Array:
        """A child of each pair of snapped rows: order crossover, or uniform crossover within the sizes allowed."""
        if self.ordered:
            return rows_of_places(order_crossover(places(a), places(b), generator))
        return self.rows_of_members(uniform_crossover(a[:, 1:] > 0.5, b[:, 1:] > 0.5, self.sizes, generator))

    def views(self, rows: Array) -> list[Array]:
        """What a kernel sees: vectors whose squared distances are between 0 and 1, each of shape (n, ...).

        Of an order: which of two items comes first (the squared distance is the share of discordant pairs, as in the
        Mallows kernel), each item's place (Spearman's distance), and who is next to whom around the circle (the share
        of edges of a tour that differ). Of a selection: membership (Hamming distance) and size. Squared Euclidean
        distances all, so that any function of them that is positive definite in every dimension makes a kernel.

        Args:
            rows: snapped, shape (n, columns); negative where inactive: those are in the middle of all others.

        Source:
            Jiao and Vert, "The Kendall and Mallows kernels for permutations", 2015.
        """
        active = (rows[:, :1] >= 0.0) * 1.0
        if not self.ordered:
            low, high = self.sizes
            members = (rows[:, 1:] > 0.5) * 1.0
            size = (members.sum(1, keepdims=True) - low) / max(high - low, 1)
            return [active * (members - 0.5) / np.sqrt(self.k), active * (size - 0.5)]
        at = rows * self.k
        first, second = np.triu_indices(self.k, 1)
        apart = at[:, first] - at[:, second]
        pairs = max(len(first), 1)
        before = np.sign(apart) / (2.0 * np.sqrt(pairs))
        scale = np.sqrt(max(self.k * (self.k**2 - 1) / 3.0, 1.0))
        gap = np.rint(np.abs(apart)).astype(np.int64)
        beside = ((gap == 1) | (gap == self.k - 1)) / np.sqrt(2.0 * self.k)
        return [active * before, active * (at - self.k / 2.0) / scale, active * beside]


def ranks(keys: Array) -> Whole:
    """Rank of each key within its row, from 0; of equal ones the first comes first. Shape (n, k)."""
    order = np.argsort(keys, axis=1, kind="stable")
    out = np.empty(keys.shape, dtype=np.int64)
    np.put_along_axis(out, order, np.broadcast_to(np.arange(keys.shape[1]), keys.shape), axis=1)
    return out


def places(rows: Array) -> Whole:
    """Each item's place from 0, from snapped rows of a permutation, shape (n, k)."""
    return np.asarray(np.minimum((rows * rows.shape[1]).astype(np.int64), rows.shape[1] - 1))


def rows_of_places(at: Whole) -> Array:
    """The inverse of :func:`places`."""
    return np.asarray((at + 0.5) / at.shape[1])


def _moved_orders(at: Whole, generator: np.random.Generator) -> Whole:
    n, k = at.shape
    if k < 2:
        return at
    span = np.clip(np.exp(generator.random((n, 1)) * np.log(k)).astype(np.int64), 1, k - 1)
    end = np.minimum(generator.integers(0, k, (n, 1)) + span, k - 1)
    start = np.maximum(end - span, 0)
    kind, forward = generator.integers(0, 3, (n, 1)), generator.random((n, 1)) < 0.5
    inside = (at >= start) & (at <= end)
    reverse = start + end - at
    swapped = np.where(at == start, end, np.where(at == end, start, at))
    later = np.where(at == start, end, at - 1)
    earlier = np.where(at == end, start, at + 1)
    moved = np.where(kind == 0, reverse, np.where(kind == 1, swapped, np.where(forward, later, earlier)))
    return np.asarray(np.where(inside, moved, at))


def _moved_members(members: Mask, sizes: tuple[int, int], generator: np.random.Generator) -> Mask:
    n, k = members.shape
    low, high = sizes
    size, luck = members.sum(1), generator.random((n, k))
    leaving = np.where(members, luck, -1.0).argmax(1)
    coming = np.where(members, -1.0, luck).argmax(1)
    kind = generator.integers(0, 3, n)
    swap = (kind == 0) & (size > 0) & (size < k)
    adds = swap | ((kind == 1) & (size < high)) | ((kind == 2) & (size <= low) & (size < high))
    drops = swap | ((kind == 2) & (size > low)) | ((kind == 1) & (size >= high) & (size > low))
    stuck = ~adds & ~drops & (size > 0) & (size < k)
    adds, drops, out, every = adds | stuck, drops | stuck, members.copy(), np.arange(n)
    out[every[drops], leaving[drops]] = False
    out[every[adds], coming[adds]] = True
    return out


def order_crossover(a: Whole, b: Whole, generator: np.random.Generator) -> Whole:
    """Places of children that keep a stretch of the first parent and fill the rest in the second one's order.

    Args:
        a: places of the first parents' items, shape (n, k).
        b: the same of the second.
        generator: the stream to draw from.

    Source:
        Davis, "Applying adaptive algorithms to epistatic domains", 1985 (OX).
    """
    n, k = a.shape
    ends = np.sort(generator.integers(0, k, (n, 2)), axis=1)
    start, end = ends[:, :1], ends[:, 1:]
    kept = (a >= start) & (a <= end)
    rank = ranks(np.where(kept, float(k), b))
    filled = np.where(rank < start, rank, rank + (end - start + 1))
    return np.asarray(np.where(kept, a, filled))


def uniform_crossover(a: Mask, b: Mask, sizes: tuple[int, int], generator: np.random.Generator) -> Mask:
    """Members from either parent; where a size is not allowed, the other parent's items come or some leave."""
    child = np.where(generator.random(a.shape) < 0.5, a, b)
    wanted = np.clip(child.sum(1, keepdims=True), *sizes)
    claim = 2.0 * child + (a | b) + generator.random(a.shape) * 0.5
    return np.asarray(ranks(-claim) < wanted)
