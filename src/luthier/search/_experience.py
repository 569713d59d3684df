"""Other studies' trials: where to begin, and which way is up, for as long as they are right about this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from luthier.pareto import Array
from luthier.search._encode import Encoding
from luthier.search._threads import OneThread

_FIRST = 3  # proposals that come from the leaders
_APART = 0.1  # leaders closer than this, by the root mean square over columns, count as one
_TRUST, _DOUBT = 4.0, 1.0  # what agreement and disagreement of ranks begin with


def strength(trials: int) -> float:
    """What a standard deviation that other studies expect counts, in units of log improvement, after so many trials."""
    return 3.0 / (1.0 + (trials / 10.0) ** 2)


@dataclass(frozen=True)
class Source:
    """One study.

    Attributes:
        encoding: the new study's space.
        rows: unit rows of its trials, shape (n, d).
        scores: normal scores of their ranks, the best lowest, shape (n,).
    """

    encoding: Encoding
    rows: Array
    scores: Array

    @cached_property
    def _process(self) -> Any:
        from luthier.search.bayes.model import Models  # Gaussian processes: only where there is experience

        with OneThread()():  # this import may just have loaded a BLAS that nobody has limited yet
            return Models(self.encoding).objective(self.rows, self.scores)

    def predict(self, features: Array) -> Array:
        """What it expects at feature rows, in standard deviations, lower is better, shape (n,)."""
        return np.asarray(self._process.predict(features)[0])

    def predict_with_slopes(self, features: Array) -> tuple[Array, Array]:
        """The same, and its slopes, shape (n, d)."""
        mean, _, slopes, _ = self._process.predict_with_slopes(features)
        return mean, slopes

    def agreement(self, features: Array, places: Array) -> float:
        """How far the ranks that it predicts are those that came out, see :func:`agreement`.

        Each pair of trials counts as much as its predicted difference.

        Args:
            features: of this study's trials, shape (n, d).
            places: their places, 0 the best, shape (n,).

        Source:
            Feurer, Letham and Bakshy, "Scalable meta-learning for Bayesian optimization using ranking-weighted
            Gaussian process ensembles", 2018, whose ranking loss this softens.
        """
        return agreement(self.predict(features) if len(features) else np.empty(0), places)


def agreement(expected: Array, places: Array) -> float:
    """How far expected losses have the order that came out, from 0, chance or worse, to 5/3, all.

    It begins with 1, as if some pairs had been seen of which four in five were right; with more than that it exceeds 1.

    Args:
        expected: of some trials, in standard deviations, shape (n,).
        places: their places, 0 the best, shape (n,); pairs with the same place say nothing.
    """
    first, second = np.triu_indices(len(expected), 1)
    gap = expected[first] - expected[second]
    order = np.sign(places[first] - places[second])
    right = gap * order > 0
    mass = np.where(order == 0, 0.0, np.abs(gap)) / np.sqrt(max(len(expected), 1))
    share = (_TRUST + mass[right].sum()) / (_TRUST + _DOUBT + mass.sum())
    return float(max(2.0 * share - 1.0, 0.0)) / (2.0 * _TRUST / (_TRUST + _DOUBT) - 1.0)


class Experience:
    """All of them.

    Args:
        encoding: the new study's space.
        told: one record for each study, see :meth:`luthier.space.Space.with_experience`.
    """

    def __init__(self, encoding: Encoding, told: Sequence[Mapping[str, Any]]) -> None:
        self.encoding = encoding
        self.sources = [_source(encoding, record) for record in told]
        self.leaders = _leaders(self.sources, len(encoding))

    def weights(self, features: Array, places: Array) -> Array:
        """Each source's weight, shape (sources,), from agreement, shared among those that agree."""
        each = np.array([s.agreement(features, places) for s in self.sources])
        return np.asarray(each * each / max(float(each.sum()), 1.0))

    def bonus(self, features: Array, places: Array, at: Array) -> Array:
        """What is added to a logarithm that is to be maximised, at feature rows ``at``, shape (b,).

        Args:
            features: of this study's trials that ran, shape (r, d).
            places: their places, 0 the best, shape (r,).
            at: feature rows, shape (b, d).
        """
        share = strength(len(features)) * self.weights(features, places)
        return -sum((w * s.predict(at) for s, w in zip(self.sources, share, strict=True)), np.zeros(len(at)))


def _source(encoding: Encoding, record: Mapping[str, Any]) -> Source:
    from scipy.special import ndtri

    space = encoding.space
    rows = np.array([encoding.rows(space.load(params)) for params, _ in record["trials"]])
    ranks = np.array([rank for _, rank in record["trials"]], dtype=float)
    return Source(encoding, rows.reshape(-1, len(encoding)), ndtri(0.02 + 0.96 * ranks))


def _leaders(sources: Sequence[Source], d: int) -> Array:
    """The best trials of all sources in turn, none close to one before, shape (<= 3, d)."""
    queues = [iter(s.rows[np.argsort(s.scores, kind="stable")]) for s in sources]
    found: list[Array] = []
    while queues and len(found) < _FIRST:
        queue = queues.pop(0)
        for row in queue:
            if all(np.sqrt(((row - other) ** 2).mean()) > _APART for other in found):
                found.append(row)
                queues.append(queue)
                break
    return np.array(found).reshape(-1, d)
