"""An acquisition weighted by what was believed before the first trial."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from luthier.pareto import Array
from luthier.search import _belief, _experience
from luthier.search._belief import Belief
from luthier.search._encode import Encoding
from luthier.search.bayes.maximise import Acquisition

_TRUSTED = 0.3
_INWARD = 0.2
_FLOOR = 1e-3
_LEVEL = 0.1104  # the logarithm of that density in the middle


class Believed:
    """An acquisition, in logarithms, plus (beta / n) log prior, minus what other studies expect in standard deviations.

    Args:
        base: what the trials say.
        belief: what was believed before.
        encoding: the space's.
        rows: unit rows of the trials that ran, shape (r, d).
        places: their places, 0 the best, shape (r,).

    Source:
        Hvarfner et al., "piBO: augmenting acquisition functions with user beliefs for Bayesian optimization", 2022,
        equation 6.
    """

    def __init__(self, base: Acquisition, belief: Belief, encoding: Encoding, rows: Array, places: Array) -> None:
        self.base, self.belief, self.encoding = base, belief, encoding
        self.power = _belief.strength(len(rows)) * belief.trust(rows, places)
        known, share = belief.experience, _experience.strength(len(rows))
        weights = known.weights(encoding.features(rows), places) if known else np.empty(0)
        self.sources = list(zip(known.sources if known else [], share * weights, strict=True))

    def __call__(self, rows: Array) -> Array:
        """Values at feature rows, shape (b,)."""
        value = self.base(rows) + self.power * self.belief.log(rows, self._active(rows)).sum(1)
        for source, weight in self.sources:
            if weight > 0:
                value = value - weight * source.predict(rows)
        return np.asarray(value)

    def with_gradient(self, rows: Array) -> tuple[Array, Array]:
        """Values, shape (b,), and gradients, shape (b, d)."""
        active = self._active(rows)
        value, gradient = self.base.with_gradient(rows)
        value = value + self.power * self.belief.log(rows, active).sum(1)
        gradient = gradient + self.power * self.belief.slope(rows, active)
        for source, weight in self.sources:
            if weight > 0:
                mean, slope = source.predict_with_slopes(rows)
                value, gradient = value - weight * mean, gradient - weight * slope
        return value, gradient

    def _active(self, rows: Array) -> NDArray[np.bool_]:
        return self.encoding.snap(rows)[1]


class Inward:
    """An acquisition, in logarithms, plus the log prior that the best lies anywhere but at the edges of the ranges.

    The sum over numbers that are active, in unit coordinates, of 0.2 log(4 u (1 - u) + 0.001) + 0.11: the density of
    Beta(1.2, 1.2) for each. A Gaussian process knows least at the edges, and would look there again and again, most of
    all where the results are noisy; there are more edges the more parameters there are. So points there are proposed
    only where they promise clearly more.

    Args:
        base: what the trials say.
        encoding: the space's.
    """

    def __init__(self, base: Acquisition, encoding: Encoding) -> None:
        self.base, self.encoding, self.numbers = base, encoding, np.flatnonzero(~encoding.categorical)

    def __call__(self, rows: Array) -> Array:
        """Values at feature rows, shape (b,)."""
        return np.asarray(self.base(rows) + self._log(rows))

    def with_gradient(self, rows: Array) -> tuple[Array, Array]:
        """Values, shape (b,), and gradients, shape (b, f)."""
        value, gradient = self.base.with_gradient(rows)
        unit = rows[:, self.numbers]
        height, gradient = _height(unit), gradient.copy()
        gradient[:, self.numbers] += 4.0 * _INWARD * (1.0 - 2.0 * unit) / height
        return value + self._log(rows), gradient

    def _log(self, rows: Array) -> Array:
        """The prior, up to what is the same everywhere; numbers that are not active stand in the middle."""
        active = self.encoding.snap(rows)[1][:, self.numbers] if self.encoding.conditional else 0.0
        return np.asarray((_INWARD * np.log(_height(rows[:, self.numbers])) + _LEVEL * active).sum(1))


def _height(unit: Array) -> Array:
    """A parabola of height 1 in the middle and almost 0 at both edges."""
    return 4.0 * unit * (1.0 - unit) + _FLOOR


def weigh(base: Acquisition, belief: Belief, encoding: Encoding, rows: Array, places: Array) -> Acquisition:
    """The acquisition under a belief; the same where there is none.

    Args:
        base: what the trials say.
        belief: what was believed before.
        encoding: the space's.
        rows: unit rows of the trials that ran, shape (r, d).
        places: their places, 0 the best, shape (r,).
    """
    return base if belief.silent else Believed(base, belief, encoding, rows, places)


def extra(belief: Belief, encoding: Encoding, first: int, rows: Array, places: Array) -> int:
    """How many first trials come on top: as many as a belief cost that turned out wrong.

    Args:
        belief: what was believed before.
        encoding: the space's.
        first: how many trials come before the model.
        rows: unit rows of the trials that ran, shape (r, d).
        places: their places, 0 the best, shape (r,).
    """
    known, more = belief.experience, 0
    if belief.priors and belief.trust(rows, places) < _TRUSTED:
        more = first // 2
    if known is not None and known.weights(encoding.features(rows), places).sum() <= _TRUSTED:
        more += len(known.leaders)
    return more
