"""What is believed of a space before its first trial: priors of its parameters, and what other studies found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from luthier.pareto import Array
from luthier.search._encode import Encoding
from luthier.search._experience import Experience, agreement
from luthier.space import Params, Space

Bend = Callable[[Array], Array]

_WIDTH = 0.15  # standard deviation of a number's belief, as a share of its range
_DOUBT = 0.1  # share of a number's belief that is uniform
_CHOSEN = 0.5  # probability of the believed option, beyond its uniform share
_HALF = 10.0  # trials after which a belief has half its weight
_STRENGTH = 10.0
_DENIED = 0.3  # trust below which the trials speak against a belief
_NODES = 512
_TOP = 1.0 - 2.0**-53


@dataclass(frozen=True)
class Prior:
    """The belief in one parameter's value, as a density over its column; 1 is the density of no belief.

    Numbers and ordinals: 0.9 N(mode, 0.15^2) cut to [0, 1], and 0.1 uniform. Choices: half of the probability on the
    believed option, the other half on all.

    Attributes:
        column: of unit rows.
        mode: the believed value's place in [0, 1].
        options: how many a choice has; 0 for numbers and ordinals.
    """

    column: int
    mode: float
    options: int

    def log(self, x: Array) -> Array:
        """Log density at places, any shape."""
        if self.options:
            same = np.floor(x * self.options) == np.floor(self.mode * self.options)
            return np.log(np.where(same, _CHOSEN * self.options + 1.0 - _CHOSEN, 1.0 - _CHOSEN))
        return np.asarray(np.log(self._density(x)))

    def slope(self, x: Array) -> Array:
        """Derivative of the log density; 0 for choices."""
        if self.options:
            return np.zeros_like(x)
        density = self._density(x)
        return np.asarray(-(x - self.mode) / _WIDTH**2 * (density - _DOUBT) / density)

    def _density(self, x: Array) -> Array:
        from scipy.special import ndtr

        mass = ndtr((1.0 - self.mode) / _WIDTH) - ndtr(-self.mode / _WIDTH)
        bell = np.exp(-0.5 * ((x - self.mode) / _WIDTH) ** 2) / (_WIDTH * mass * np.sqrt(2.0 * np.pi))
        return np.asarray((1.0 - _DOUBT) * bell + _DOUBT)

    def bend(self, u: Array, weight: float) -> Array:
        """Uniform numbers turned into draws from weight x belief + (1 - weight) x uniform, in the same order."""
        if self.options:
            ends = np.concatenate([[0.0], np.cumsum(self.shares(weight))[:-1], [1.0]])
            at = np.clip(np.searchsorted(ends, u, side="right") - 1, 0, self.options - 1)
            return np.asarray((at + (u - ends[at]) / (ends[at + 1] - ends[at])) / self.options)
        nodes, heap = _heap(self.mode)
        return np.interp(u, (1.0 - weight) * nodes + weight * heap, nodes)

    def shares(self, weight: float) -> Array:
        """Probability of each option of a choice, shape (options,)."""
        share = np.full(self.options, (1.0 - weight * _CHOSEN) / self.options)
        share[int(self.mode * self.options)] += weight * _CHOSEN
        return share


@lru_cache(maxsize=256)
def _heap(mode: float) -> tuple[Array, Array]:
    """The cumulative belief at nodes of [0, 1]."""
    from scipy.special import ndtr

    nodes = np.linspace(0.0, 1.0, _NODES + 1)
    below = ndtr((nodes - mode) / _WIDTH)
    bell = (below - below[0]) / (below[-1] - below[0])
    return nodes, (1.0 - _DOUBT) * bell + _DOUBT * nodes


class Belief:
    """Everything believed of a space. Its weight falls with the number of trials, so that a wrong one is overcome.

    Args:
        space: the space, with its parameters' priors and its experience.

    Source:
        weighting: Hvarfner et al., "piBO: augmenting acquisition functions with user beliefs for Bayesian
        optimization", 2022.
    """

    def __init__(self, space: Space, encoding: Encoding | None = None) -> None:
        self.space = space
        held = [n for n, p in space.parameters.items() if p.prior is not None]
        self.silent = not held and not space.experience
        self.encoding = encoding or (None if self.silent else Encoding(space))
        self.priors = [_prior(space, name) for name in held]
        self.experience = Experience(self.encoding, space.experience) if self.encoding and space.experience else None

    def guess(self, index: int, row: Array) -> Array | None:
        """The trial of this number, if there is a suggestion for it.

        Args:
            index: how many trials there are already.
            row: the unit row that stands where nothing is believed, shape (d,).

        Returns:
            a unit row; first the leaders of other studies, then the priors' modes.
        """
        leaders = self.experience.leaders if self.experience else np.empty((0, len(row)))
        if index < len(leaders):
            return np.asarray(leaders[index])
        if index == len(leaders) and self.priors:
            out = row.copy()
            for prior in self.priors:
                out[prior.column] = prior.mode
            return out
        return None

    def suggest(self, index: int, generator: np.random.Generator) -> Params | None:
        """The same as parameters, the rest drawn; None: no suggestion."""
        if self.silent:
            return None
        row = self.guess(index, generator.random(self.space.width))
        if row is None:
            return None
        return self.space.from_unit(row.tolist())

    def bend(self, trials: int, trust: float = 1.0) -> Bend | None:
        """What turns uniform rows into believed ones after so many trials; None: nothing.

        Args:
            trials: how many there are.
            trust: how far they bear the priors out, see :meth:`trust`; more than 1 counts as 1.
        """
        if not self.priors:
            return None
        weight, priors = min(trust, 1.0) * _HALF / (_HALF + trials), self.priors

        def bent(unit: Array) -> Array:
            out = np.array(unit, dtype=float)
            for prior in priors:
                out[..., prior.column] = prior.bend(out[..., prior.column], weight)
            return np.asarray(np.minimum(out, _TOP))

        return bent

    def log(self, rows: Array, active: NDArray[np.bool_]) -> Array:
        """Log density of the priors by column, shape (n, d); 0 where nothing is believed or active."""
        out = np.zeros(rows.shape)
        for prior in self.priors:
            out[:, prior.column] = np.where(active[:, prior.column], prior.log(rows[:, prior.column]), 0.0)
        return out

    def trust(self, rows: Array, places: Array) -> float:
        """How far the trials bear the priors out, from 0; 1 where there is nothing to tell.

        Args:
            rows: unit rows of the trials that ran, shape (r, d).
            places: their places, 0 the best, shape (r,).
        """
        if not self.priors or self.encoding is None or len(rows) < 2:
            return 1.0
        expected = -self.log(*self.encoding.snap(rows)).sum(1)
        return agreement(expected / max(float(expected.std()), 1e-12), places)

    def denied(self, rows: Array, places: Array) -> bool:
        """Whether the trials speak against where a search begins: other studies' leaders, else the priors' modes.

        Args:
            rows: unit rows of the trials that ran, shape (r, d).
            places: their places, 0 the best, shape (r,).
        """
        known = self.experience
        if known is None or not len(known.leaders) or self.encoding is None:
            return self.trust(rows, places) < _DENIED
        return bool(known.weights(self.encoding.features(rows), places).sum() < _DENIED)

    def slope(self, rows: Array, active: NDArray[np.bool_]) -> Array:
        """Derivatives of :meth:`log`, shape (n, d)."""
        out = np.zeros(rows.shape)
        for prior in self.priors:
            out[:, prior.column] = np.where(active[:, prior.column], prior.slope(rows[:, prior.column]), 0.0)
        return out


def strength(trials: int) -> float:
    """The power of a prior next to an acquisition after n trials: beta / n, from beta trials on beta^2 / n^2."""
    share = _STRENGTH / max(trials, 1)
    return share * min(share, 1.0)


def _prior(space: Space, name: str) -> Prior:
    parameter = space[name]
    column = space.slices[name].start
    unordered = parameter.to_json()["kind"] == "choice"
    mode = float(np.clip(parameter.to_unit(parameter.prior), 0.0, _TOP))
    return Prior(column, mode, int(parameter.size) if unordered else 0)
