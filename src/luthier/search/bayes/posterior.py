"""What a Gaussian process believes of the trials themselves, where their results are noisy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from luthier.pareto import Array
from luthier.search._encode import Encoding
from luthier.search._threads import OneThread
from luthier.search.bayes import kernel, optimise, warp
from luthier.search.bayes.fit import Data, Evidence, Process

FEWEST = 20
_FITTED = 96
_MOST = 384
_QUIET = 1e-4  # noise variance below which there is none to speak of; the results have variance 1
_NOISY = 5e-3
_SURE = 5.0  # log odds


@dataclass(frozen=True)
class Posterior:
    """The noise-free results of trials, as a model believes them.

    Attributes:
        kept: indices of the trials that the model speaks of, shape (k,).
        mean: shape (k,), in the results' unit.
        deviation: posterior standard deviation of the noise-free result, shape (k,), the same unit.
        noise: standard deviation of one measurement, the same unit.
    """

    kept: kernel.Index
    mean: Array
    deviation: Array
    noise: float


def posterior(encoding: Encoding, rows: Array, losses: Array) -> Posterior | None:
    """What is believed of the noise-free results of trials; None where no noise is seen.

    A Gaussian process is fitted from two starts, one with little noise and one with much. Noise is seen where the
    better of the two has a noise variance above 0.5 % of the results' and is e^5 times as probable as the best
    process almost without noise. A function that is rough at a scale finer than the trials looks the same.

    Args:
        encoding: the space's.
        rows: unit rows of finished trials, shape (n, d).
        losses: what they gave, to be minimised, finite, shape (n,).

    Returns:
        None too where there are fewer than 20 trials, or fewer than two per dimension.
    """
    if len(losses) < max(FEWEST, 2 * len(encoding)):
        return None
    kept = _kept(losses)
    chosen = losses[kept]
    scale = float(np.abs(chosen).max())
    if not scale > 0:
        return None
    pulled = warp.winsorise(chosen / scale)
    middle, spread = float(pulled.mean()), float(pulled.std())
    if spread < 1e-13:
        return None
    features, targets = encoding.features(rows[kept]), (pulled - middle) / spread
    data = Data(features, targets, encoding.categorical, tuple(encoding.blocks))
    with OneThread()():
        theta = _noisy_fit(data)
        if theta is None:
            return None
        mean, variance = Process(data, theta).predict(features)
    unit = scale * spread
    noise = math.exp(0.5 * theta[data.d + 1])
    return Posterior(kept, scale * middle + unit * mean, unit * np.sqrt(variance), unit * noise)


def _kept(losses: Array) -> kernel.Index:
    """All trials; where there are many, the best half of those kept and every so manieth of the rest."""
    n = len(losses)
    if n <= _MOST:
        return np.arange(n)
    order = np.argsort(losses, kind="stable")
    rest = np.linspace(_MOST // 2, n - 1, _MOST - _MOST // 2).astype(np.int64)
    return np.sort(np.concatenate([order[: _MOST // 2], order[rest]]))


def _noisy_fit(data: Data) -> Array | None:
    """Theta with noise in it; None where the data do not ask for any."""
    every = np.unique(np.linspace(0, len(data.targets) - 1, min(len(data.targets), _FITTED)).astype(np.int64))
    evidence = Evidence(Data(data.rows[every], data.targets[every], data.categorical, data.blocks))
    low, high = evidence.bounds()
    place = evidence.d + 1
    calm, loud = evidence.start(), evidence.start(loud=True)
    theta, value = min((_lowest(evidence, start, low, high) for start in (calm, loud)), key=lambda found: found[1])
    if theta[place] < math.log(_NOISY):
        return None
    high[place] = math.log(_QUIET)
    quiet, best = _lowest(evidence, calm, low, high)
    odds = (best - _prior(evidence, quiet)) - (value - _prior(evidence, theta))
    return theta if odds > _SURE else None


def _prior(evidence: Evidence, theta: Array) -> float:
    """The part of the value that the prior of the noise adds; odds are taken without it."""
    place = evidence.d + 1
    return float(0.5 * (theta[place] - evidence.mean[place]) ** 2 / evidence.spread2[place])


def _lowest(evidence: Evidence, start: Array, low: Array, high: Array) -> tuple[Array, float]:
    def batch(points: Array, _: kernel.Index) -> tuple[Array, Array]:
        results = [evidence(p) for p in points]
        return np.array([r[0] for r in results]), np.array([r[1] for r in results])

    theta = optimise.minimise(batch, np.clip(start, low, high)[None], low, high, 40, tolerance=1e-3)[0]
    return theta, evidence(theta)[0]
