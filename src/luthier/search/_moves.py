"""Moves from combinations that are known to others near them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from luthier.pareto import Array
from luthier.search._encode import Encoding

_TOP = 1.0 - 2.0**-53


def mutate(encoding: Encoding, parents: Array, scale: Array, generator: np.random.Generator) -> Array:
    """Copies with some coordinates moved: normal steps, at least one value further where values are listed.

    Args:
        encoding: the space's.
        parents: unit rows, shape (b, d).
        scale: standard deviation of the steps, shape (b, 1).
        generator: the stream to draw from.
    """
    b, d = parents.shape
    moves = generator.random((b, d)) < max(0.3, 1.5 / d)
    moves[np.arange(b), generator.integers(0, d, b)] = True
    step = generator.normal(size=(b, d)) * scale
    for j, dimension in enumerate(encoding.dimensions):
        if dimension.centres is not None and not dimension.categorical:
            width = 1.0 / len(dimension.centres)
            step[:, j] = np.sign(step[:, j]) * np.maximum(np.abs(step[:, j]), width)
    moved = np.clip(parents + step, 0.0, _TOP)
    moved = np.where(encoding.categorical, generator.random((b, d)), moved)
    moved = np.where(moves, moved, parents)
    return _move_structures(encoding, moved, parents, moves, generator) if encoding.blocks else np.asarray(moved)


def _move_structures(
    encoding: Encoding, moved: Array, parents: Array, moves: NDArray[np.bool_], generator: np.random.Generator
) -> Array:
    """``moved`` with each structure one to three moves away from the parents', where it moves; shape (b, d)."""
    out = moved.copy()
    start = encoding.snap(parents)[0]
    for block in encoding.blocks:
        rows, times = start[:, block.place], generator.integers(1, 4, (len(parents), 1))
        here = rows
        for i in range(3):
            here = np.where(i < times, block.move(here, generator), here)
        out[:, block.place] = np.where(moves[:, block.place.start, None], here, rows)
    return out


def around(encoding: Encoding, known: Array, n: int, generator: np.random.Generator) -> Array:
    """Unit rows near known ones, shape (n, d), for parts of a space that are too thin to be hit by chance.

    Every other one moves its numbers along the difference of two known rows, and so along a thin part; the rest are
    mutated, with steps of every size from 10^-9 to a third of the range.

    Args:
        encoding: the space's.
        known: unit rows, shape (k, d), k >= 1.
        n: how many.
        generator: the stream to draw from.
    """
    base, one, other = (known[generator.integers(0, len(known), n)] for _ in range(3))
    out = mutate(encoding, base, 10.0 ** generator.uniform(-9.0, -0.5, (n, 1)), generator)
    along = np.clip(base + generator.normal(size=(n, 1)) * (one - other), 0.0, _TOP)
    out[::2] = np.where(np.isin(np.arange(len(encoding)), encoding.numbers), along, base)[::2]
    return out
