"""The covariance function: all dimensions together, plus each dimension by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luthier.pareto import Array
from luthier.search._structures import Block
from luthier.search.bayes import structures

Index = NDArray[np.int64]


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
    slope = (1.0 + s) * decay
    s *= s
    s *= decay
    return slope + s / 3.0, (5.0 / 6.0) * slope


def single(categorical: NDArray[np.bool_], blocks: Sequence[Block]) -> Index:
    """The columns that are a dimension each: those of no structure."""
    inside = np.zeros(len(categorical), dtype=bool)
    for block in blocks:
        inside[block.place] = True
    return np.flatnonzero(~inside)


def squares(a: Array, b: Array, categorical: NDArray[np.bool_], blocks: Sequence[Block] = ()) -> Array:
    """Squared differences by dimension; 1 where categories differ, else 0. Behind them those of structures' views.

    Args:
        a: shape (..., d).
        b: shape (..., d), broadcasting with a; with structures (m, d) each, or (b, 1, d) and (1, n, d).
        categorical: which dimensions have no order, shape (d,).
        blocks: the structures, whose columns make gaps of their own.

    Returns:
        shape (d, ...): dimensions come first, so that all arithmetic runs along long stretches of memory.
    """
    if blocks:
        kept = single(categorical, blocks)
        plain = squares(a[..., kept], b[..., kept], categorical[kept])
        views = [view for block in blocks for view in structures.gaps(block, a, b)]
        return np.concatenate([plain, np.stack(views)])
    gaps = differences(a, b)
    gaps *= gaps
    for j in np.flatnonzero(categorical):
        gaps[j] = gaps[j] > 1e-12
    return gaps


def differences(a: Array, b: Array) -> Array:
    """a - b by dimension, which comes first: shape (d, ...)."""
    first = np.ascontiguousarray(np.moveaxis(a, -1, 0))
    return np.asarray(first - np.ascontiguousarray(np.moveaxis(b, -1, 0)))


@dataclass(frozen=True)
class Shape:
    """Correlation k = (1 - w) Matern52(r) + w mean_j 1 / (1 + r_j^2 / 2), with r^2 = sum_j r_j^2.

    The second part lets each parameter have an effect of its own, which most have: a main effect seen at one place
    then holds at all others.

    Attributes:
        inverse: 1 / lengthscale^2 of each dimension, shape (d,).
        share: w, between 0 and 1.

    Source:
        additive part after Duvenaud, Nickisch and Rasmussen, "Additive Gaussian processes", 2011;
        rational quadratic: Rasmussen and Williams, 2006, equation 4.19.
    """

    inverse: Array
    share: float

    def __call__(self, gaps: Array) -> tuple[Array, Array, Array]:
        """Correlations, and what their slopes are made of.

        Args:
            gaps: squared differences, shape (d, ...).

        Returns:
            the joint part (...), its slope -dk/d(r^2) (...), and the single parts 1 / (1 + r_j^2 / 2) (d, ...).
        """
        single = gaps * (0.5 * self.inverse).reshape(-1, *[1] * (gaps.ndim - 1))
        joint, slope = matern(2.0 * single.sum(0))
        single += 1.0
        return joint, slope, np.reciprocal(single, out=single)

    def value(self, halves: Array) -> Array:
        """Correlations, shape (...), from r_j^2 / 2 = gap_j / (2 l_j^2), shape (d, ...), whose memory is reused."""
        joint, _ = matern(2.0 * halves.sum(0))
        halves += 1.0
        return self._mixed(joint, np.reciprocal(halves, out=halves))

    def with_slopes(self, gaps: Array) -> tuple[Array, Array]:
        """Correlations, shape (...), and -dk/d(gap_j), shape (d, ...)."""
        joint, slope, single = self(gaps)
        value = self._mixed(joint, single)
        slope *= 1.0 - self.share
        single *= single
        single *= 0.5 * self.share / len(self.inverse)
        single += slope
        single *= self.inverse.reshape(-1, *[1] * slope.ndim)
        return value, single

    def _mixed(self, joint: Array, single: Array) -> Array:
        """The joint part, whose memory is reused, with the single ones."""
        alone = single.sum(0)
        alone *= self.share / len(self.inverse)
        joint *= 1.0 - self.share
        joint += alone
        return joint
