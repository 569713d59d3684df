"""Plateaus: where most parameters are choices, those that do not matter give the same loss again and again."""

from __future__ import annotations

import numpy as np

from luthier.pareto import Array
from luthier.search._encode import Encoding
from luthier.search.bayes.maximise import Acquisition

_SETTLED = 12
_LATELY = 8
_MANY = 3
_ALIKE = 0.01
_DRAWS = 8


def reached(encoding: Encoding, losses: Array) -> bool:
    """Whether three of the last eight trials came out like the best, in a space that is mostly choices.

    Alike: within 1 % of the distance between the best loss and the third quartile.

    Args:
        encoding: the space's.
        losses: of the trials that ran, by number, shape (n, m).
    """
    if losses.shape[1] > 1 or len(losses) < _SETTLED or 2 * len(encoding.choices) < len(encoding):
        return False
    best, worse = np.quantile(losses[:, 0], [0.0, 0.75])
    alike = losses[-_LATELY:, 0] <= best + _ALIKE * (worse - best)
    return bool(alike.sum() >= _MANY)


def elsewhere(encoding: Encoding, wanted: Acquisition, generator: np.random.Generator) -> Array:
    """A few uniform draws, the most promising first, shape (8, d): places that no climb from the leaders reaches."""
    unit = generator.random((_DRAWS, len(encoding)))
    return np.asarray(unit[np.argsort(-wanted(encoding.features(unit)), kind="stable")])
