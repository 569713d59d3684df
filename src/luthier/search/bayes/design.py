"""The first trials: what is believed, or the middle of the space; then a Latin hypercube."""

from __future__ import annotations

import numpy as np

from luthier.keys import Key
from luthier.pareto import Array
from luthier.search._belief import Belief
from luthier.search._encode import Encoding

_TRIES = 16


def latin(n: int, d: int, generator: np.random.Generator) -> Array:
    """A Latin hypercube whose closest pair is far apart, the best of some; shape (n, d).

    Source:
        McKay, Beckman and Conover, 1979; Johnson, Moore and Ylvisaker, "Minimax and maximin distance designs", 1990.
    """
    best, widest = np.empty((n, d)), -1.0
    for _ in range(_TRIES):
        strata = np.argsort(generator.random((n, d)), axis=0)
        points = (strata + generator.random((n, d))) / n
        gaps = ((points[:, None] - points[None]) ** 2).sum(-1) + np.where(np.eye(n) > 0, np.inf, 0.0)
        if gaps.min() > widest:
            best, widest = points, float(gaps.min())
    return best


def rows(belief: Belief, encoding: Encoding, size: int, index: int, key: Key) -> Array:
    """Unit rows for place ``index`` of a design of so many points: the intended one, then random stand-ins.

    Args:
        belief: what is believed of the space; bends the points.
        encoding: the space's.
        size: points of the whole design.
        index: how many trials there are already.
        key: random streams; the design depends on its seed only, the stand-ins on its trial too.

    Returns:
        shape (65, d), or (66, d) where a suggestion comes first.
    """
    d, place = len(encoding), max(index - (len(belief.experience.leaders) if belief.experience else 0), 0)
    hypercube = latin(max(size, 1), d, key.for_trial(0).generator("design"))
    middle = np.where(encoding.categorical, hypercube[0], 0.5)
    point = middle if place == 0 else hypercube[place % len(hypercube)]
    unit = np.vstack([point, key.generator("stand-ins").random((64, d))])
    bend = belief.bend(index + 10)
    unit = unit if bend is None else bend(unit)
    guess = None if belief.silent else belief.guess(index, unit[0])
    return unit if guess is None else np.vstack([guess, unit])
