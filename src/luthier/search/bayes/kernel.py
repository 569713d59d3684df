"""The covariance function: Matern-5/2 over scaled distances, categories by Hamming distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from luthier.pareto import Array

Index = NDArray[np.int64]

ROOT5 = 5.0**0.5


def matern(squares: Array) -> tuple[Array, Array]:
    """Matern-5/2 correlation of scaled squared distances.

    k(r) = (1 + s + s^2 / 3) exp(-s) with s = sqrt(5) r.

    Args:
        squares: r^2, any shape.

    Returns:
        k, and its slope -dk/d(r^2) = 5/6 (1 + s) exp(-s), both of that shape.

    Source:
        Rasmussen and Williams, "Gaussian processes for machine learning", 2006, equation 4.17.
    """
    s = np.sqrt(5.0 * squares)
    decay = np.exp(-s)
    grown = 1.0 + s
    return (grown + s * s / 3.0) * decay, (5.0 / 6.0) * grown * decay


def pairs(features: Array, owner: Index, d: int) -> Array:
    """Squared differences of all pairs i > j, by dimension.

    Args:
        features: shape (n, f).
        owner: dimension of each feature, shape (f,).
        d: number of dimensions.

    Returns:
        shape (n (n - 1) / 2, d), rows in the order of ``np.tril_indices(n, -1)``.
    """
    i, j = np.tril_indices(len(features), -1)
    wide = (features[i] - features[j]) ** 2
    out = np.zeros((len(i), d))
    for column, dimension in enumerate(owner):
        out[:, dimension] += wide[:, column]
    return out


def between(a: Array, b: Array) -> Array:
    """Squared distances between rows, shape (len(a), len(b))."""
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2.0 * (a @ b.T)
    return np.asarray(np.maximum(squares, 0.0))
