"""Densities over orders and selections, the discrete kin of Parzen windows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from luthier.pareto import Array
from luthier.search._structures import Mask, Whole


@lru_cache(maxsize=256)
def log_normaliser(k: int, rate: float) -> float:
    """Log of the sum of exp(-rate D) over all orders of k items; D: discordant pairs with any fixed one.

    Z = prod_j (1 - exp(-j rate)) / (1 - exp(-rate)).

    Source:
        Fligner and Verducci, "Distance based ranking models", 1986, equation 2.2.
    """
    j = np.arange(1, k + 1)
    return float((np.log(-np.expm1(-j * rate)) - np.log(-np.expm1(-rate))).sum())


@lru_cache(maxsize=256)
def rate_for(k: int, share: float) -> float:
    """The rate at which a draw has this expected share of discordant pairs, below one half (by bisection)."""
    j = np.arange(1, k + 1)
    low, high = 1e-6, 50.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        expected = k / np.expm1(middle) - (j / np.expm1(np.minimum(j * middle, 700.0))).sum()
        low, high = (middle, high) if expected > share * k * (k - 1) / 2 else (low, middle)
    return 0.5 * (low + high)


@dataclass(frozen=True)
class Orders:
    """A mixture of Mallows distributions, one around each trial's order, and the uniform one.

    p(x) = w_0 / k! + sum_i w_i exp(-rate D(x, x_i)) / Z(rate), with D the number of discordant pairs.

    Attributes:
        at: places of the items in each trial, shape (n, k).
        weights: of the uniform distribution and of each trial, shape (n + 1,), sum 1.
        rate: how narrow the distributions are.

    Source:
        Mallows, "Non-null ranking models", 1957.
    """

    at: Whole
    weights: Array
    rate: float

    def draw(self, n: int, generator: np.random.Generator) -> Whole:
        """Places of items, shape (n, k): a trial is picked, then items are inserted in its order one by one.

        Source:
            repeated insertion: Doignon, Pekec and Regenwetter, "The repeated insertion model for rankings", 2004.
        """
        k = self.at.shape[1]
        picked = np.searchsorted(np.cumsum(self.weights), generator.random(n)) - 1
        picked = np.minimum(picked, len(self.at) - 1)
        rate = np.where(picked >= 0, self.rate, 1e-9)[:, None]
        out = np.zeros((n, k), dtype=np.int64)  # places of the centre's first, second ... item
        for j in range(1, k):
            back = np.cumsum(np.exp(-rate * np.arange(j + 1)), axis=1)
            shift = (generator.random((n, 1)) * back[:, -1:] > back).sum(1)
            place = (j - shift)[:, None]
            out[:, :j] += out[:, :j] >= place
            out[:, j] = place[:, 0]
        centre = self.at[np.maximum(picked, 0)]
        return np.take_along_axis(out, centre, axis=1)

    def log_density(self, at: Whole) -> Array:
        """Log probability of orders given as places, shape (m,)."""
        from scipy.special import logsumexp

        k = at.shape[1]
        first, second = np.triu_indices(k, 1)
        pairs = len(first)
        mine = np.sign(at[:, first] - at[:, second]).astype(float)
        theirs = np.sign(self.at[:, first] - self.at[:, second]).astype(float)
        discordant = 0.5 * (pairs - mine @ theirs.T)
        logs = -self.rate * discordant - log_normaliser(k, self.rate)
        uniform = np.full((len(at), 1), -np.log(np.arange(1, k + 1)).sum())  # 1 / k! itself is 0 from 178 items on
        return np.asarray(logsumexp(np.hstack([uniform, logs]), axis=1, b=self.weights))


@dataclass(frozen=True)
class Selections:
    """Sizes by their share among trials; given the size, items by independent inclusion conditioned on it.

    p(S) = p(|S|) prod_{i in S} o_i / e_{|S|}(o), with o_i the odds that item i is in, and e_s the sum of all products
    of s of them.

    Attributes:
        low: fewest items.
        sizes: probability of each size from ``low`` on, shape (m,).
        odds: of each item, shape (k,).

    Source:
        Chen, Dempster and Liu, "Weighted finite population sampling to maximize entropy", 1994 (conditional Bernoulli).
    """

    low: int
    sizes: Array
    odds: Array

    def _log_sums(self) -> Array:
        """Log of e_s of the odds of items i, i + 1 ..., shape (k + 1, k + 1): row i, column s; -inf where s is more."""
        k = len(self.odds)
        out = np.full((k + 1, k + 1), -np.inf)
        out[:, 0] = 0.0
        for i in range(k - 1, -1, -1):
            out[i, 1:] = np.logaddexp(out[i + 1, 1:], np.log(self.odds[i]) + out[i + 1, :-1])
        return out

    def draw(self, n: int, generator: np.random.Generator) -> Mask:
        """Members, shape (n, k)."""
        k, sums = len(self.odds), self._log_sums()
        left = self.low + np.searchsorted(np.cumsum(self.sizes)[:-1], generator.random(n))
        luck, out = generator.random((n, k)), np.zeros((n, k), dtype=bool)
        for i in range(k):
            share = self.odds[i] * np.exp(sums[i + 1, np.maximum(left - 1, 0)] - sums[i, left])
            out[:, i] = (left > 0) & ((luck[:, i] < share) | (left >= k - i))  # all the rest, where they are needed
            left = left - out[:, i]
        return out

    def log_density(self, members: Mask) -> Array:
        """Log probability of selections, shape (m,)."""
        size = members.sum(1)
        given = members @ np.log(self.odds) - self._log_sums()[0, size]
        return np.asarray(np.log(self.sizes[size - self.low]) + given)


def orders(at: Whole, weights: Array) -> Orders:
    """The density of some trials' orders: narrower, the more there are.

    Args:
        at: places, shape (n, k).
        weights: of the uniform distribution and of each trial, shape (n + 1,), sum 1.
    """
    share = round(float(0.25 * max(len(at), 1) ** -0.5 + 0.02), 3)
    return Orders(at, weights, rate_for(at.shape[1], share))


def selections(members: Mask, weights: Array, sizes: tuple[int, int]) -> Selections:
    """The density of some trials' selections; the uniform part stands for one trial of each size and half of each item.

    Args:
        members: shape (n, k).
        weights: of the uniform distribution and of each trial, shape (n + 1,), sum 1.
        sizes: fewest and most items allowed.
    """
    low, high = sizes
    count = np.zeros(high - low + 1)
    np.add.at(count, members.sum(1) - low, weights[1:])
    near = np.convolve(count, [0.2, 0.6, 0.2])[1:-1] if len(count) > 2 else count
    share = weights[0] / len(near) + (1.0 - weights[0]) * near / max(near.sum(), 1e-300)
    likely = np.clip(0.5 * weights[0] + weights[1:] @ members, 1e-3, 1.0 - 1e-3)
    return Selections(low, share / share.sum(), likely / (1.0 - likely))
