"""The first trials: what is believed, or the middle of the space; then a Latin hypercube, then what is far from all."""

from __future__ import annotations

import numpy as np

from luthier.keys import Key
from luthier.pareto import Array
from luthier.search._belief import Belief
from luthier.search._encode import Encoding
from luthier.search.bayes import kernel

_TRIES = 16
_FEWEST, _MOST = 4, 8
_MORE, _PLAIN = 4, 2  # at most so many more; so many options need none


def size(encoding: Encoding) -> int:
    """How many trials come before the model: by the number of dimensions, more where choices have options to be seen.

    Few results for an option at the wrong setting of the rest say that it is bad, and the model believes them: 4 to 8
    trials, and one more for each option beyond the first of its choice, the first two such left out, 4 at most.
    """
    options = sum(
        len(each.centres) - 1 for each in encoding.dimensions if each.categorical and each.centres is not None
    )
    return max(_FEWEST, min(_MOST, len(encoding) // 2 + 3)) + min(_MORE, max(0, options - _PLAIN))


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


def rows(belief: Belief, encoding: Encoding, size: int, known: Array, key: Key, bent: bool = True) -> Array:
    """Unit rows for the next place of a design of so many points: the intended one, then random stand-ins.

    Where the belief counts no longer, a second design follows: what a wrong belief leads to is the best place near it,
    and a search that knows little else stays there. Behind the last place the stand-ins come alone, the one farthest
    from all trials first.

    Args:
        belief: what is believed of the space; bends the points.
        encoding: the space's.
        size: points of the whole design.
        known: unit rows of the trials there are already, shape (k, d).
        key: random streams; the design depends on its seed only, the stand-ins on its trial too.
        bent: whether the belief still counts.

    Returns:
        shape (65, d), or (66, d) where a suggestion comes first.
    """
    d, index = len(encoding), len(known)
    place = max(index - (len(belief.experience.leaders) if belief.experience else 0), 0)
    turn, at = divmod(place, max(size, 1))
    hypercube = latin(max(size, 1), d, key.for_trial(turn).generator("design"))
    middle = np.where(encoding.categorical, hypercube[0], 0.5)
    point = middle if at == 0 else hypercube[at]
    unit = np.vstack([point, key.generator("stand-ins").random((64, d))])
    bend = belief.bend(index + 10) if bent else None
    unit = unit if bend is None else bend(unit)
    if place >= (size if bent else 2 * size):
        return farthest(encoding, unit[1:], known)
    guess = None if belief.silent else belief.guess(index, unit[0])
    return unit if guess is None else np.vstack([guess, unit])


def farthest(encoding: Encoding, unit: Array, known: Array) -> Array:
    """Unit rows, shape (b, d), ordered by their distance to the nearest of the known ones, shape (k, d)."""
    if len(known) == 0:
        return unit
    each = kernel.squares(
        encoding.features(unit)[:, None], encoding.features(known)[None], encoding.categorical, tuple(encoding.blocks)
    )
    return np.asarray(unit[np.argsort(-each.sum(0).min(1), kind="stable")])
