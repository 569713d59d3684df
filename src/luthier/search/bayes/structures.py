"""Permutations and subsets in a Gaussian process: their distances, and local search among them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from luthier.pareto import Array
from luthier.search._encode import Encoding
from luthier.search._structures import Block

_NEIGHBOURS = 32
_ROUNDS = 4


def gaps(block: Block, a: Array, b: Array) -> list[Array]:
    """Squared distances of each view of a structure, between 0 and 1; see :meth:`Block.views`.

    k = f(sum_j gap_j / l_j^2) with f the Matern or the rational quadratic function is positive definite, as the gaps
    are squared Euclidean distances (Schoenberg, 1938); with f = exp it would be the Mallows kernel.

    Args:
        block: the structure.
        a: feature rows, shape (m, d), or (b, 1, d) for all pairs.
        b: the same, shape (m, d), or (1, n, d).

    Returns:
        one array for each view, shape (m,) or (b, n).
    """
    width = block.place.stop - block.place.start
    left = block.views(a[..., block.place].reshape(-1, width))
    right = block.views(b[..., block.place].reshape(-1, width))
    if a.ndim == 2:
        return [((x - y) ** 2).sum(1) for x, y in zip(left, right, strict=True)]
    return [
        np.maximum((x * x).sum(1)[:, None] + (y * y).sum(1) - 2.0 * x @ y.T, 0.0)
        for x, y in zip(left, right, strict=True)
    ]


def count(block: Block) -> int:
    """How many views there are."""
    return 3 if block.ordered else 2


def climb(
    encoding: Encoding, value: Callable[[Array], Array], best: Array, kept: Array, generator: np.random.Generator
) -> tuple[Array, Array]:
    """Local search over structures: the best of some neighbours of each start, while that is an improvement.

    Args:
        encoding: the space's.
        value: of unit rows, to be maximised.
        best: unit rows, shape (m, d).
        kept: their values, shape (m,).
        generator: the stream to draw from.

    Returns:
        rows and values, none worse.
    """
    best, kept = encoding.snap(best)[0], kept.copy()
    for block in encoding.blocks:
        for _ in range(_ROUNDS):
            unit = np.repeat(best, _NEIGHBOURS, 0)
            unit[:, block.place] = block.move(unit[:, block.place], generator)
            score = value(unit).reshape(len(best), _NEIGHBOURS)
            pick = score.argmax(1)
            better = np.flatnonzero(score[np.arange(len(best)), pick] > kept)
            if len(better) == 0:
                break
            best[better] = unit[better * _NEIGHBOURS + pick[better]]
            kept[better] = score[better, pick[better]]
    return best, kept
