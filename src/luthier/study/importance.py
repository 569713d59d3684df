"""Which parameters matter: shares of variance by functional ANOVA, from the trials that are there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from luthier.errors import UsageError
from luthier.pareto import Array
from luthier.space import Params, Space
from luthier.trial import Trial

FEWEST = 5
_MOST = 256


class Importance(dict[str, float]):
    """Parameter to its share of a metric's variance, the largest first.

    A share is the parameter's own effect and half of each interaction that it takes part in (its Shapley effect, as
    far as pairs go), so that the shares sum to what is explained.

    Attributes:
        main: parameter to the share of its own effect alone.
        pairs: two parameters to the share of their interaction, the largest first.
        explained: sum of all, the part of the variance that the model predicts for trials left out; the rest is noise,
            or more than the model can see.

    Example:
        >>> found = Importance({"lr": 0.5}, {("lr", "width"): 0.2, ("depth", "lr"): 0.1})
        >>> found["lr"], found["width"], round(found.explained, 3)
        (0.65, 0.1, 0.8)
    """

    def __init__(self, main: Mapping[str, float], pairs: Mapping[tuple[str, str], float]) -> None:
        total = dict(main)
        for names, share in pairs.items():
            for name in names:
                total[name] = total.get(name, 0.0) + share / 2
        super().__init__(sorted(total.items(), key=lambda item: -item[1]))
        self.main = dict(sorted(main.items(), key=lambda item: -item[1]))
        self.pairs = dict(sorted(pairs.items(), key=lambda item: -item[1]))

    @property
    def explained(self) -> float:
        """Sum of all shares."""
        return sum(self.values())

    def __reduce__(self) -> tuple[type[Importance], tuple[dict[str, float], dict[tuple[str, str], float]]]:
        return Importance, (self.main, self.pairs)


def importance(space: Space, trials: Sequence[Trial], metrics: str | Sequence[str]) -> Importance:
    """Share of a metric's variance over the space that each parameter, and each pair of them, explains.

    A Gaussian process that is a sum of one function for each parameter and one for each pair, all of mean zero and
    orthogonal under uniform draws from the space, is fitted to the trials; the data choose each parameter's strength.
    The variances of the functions' posterior means are the shares, scaled so that they sum to the part of the variance
    that the model predicts for trials left out. They speak of the whole space (with its logarithms), wherever the
    search went. A parameter that exists only under a condition counts where it is active; whether it exists is its
    parent's effect. Repeated trials are averaged; of more than 256 combinations those farthest apart are taken; results
    far outside the rest are drawn in where they cannot be predicted. ``where`` is not considered: the shares are those
    of the space without it.

    Args:
        space: where was searched.
        trials: completed trials, at least five; with fewer than some thirty the shares are rough.
        metrics: the metric's name; of several, the mean of their shares is taken.

    Returns:
        parameter to share in [0, 1], the largest first, with the pairs' shares as an attribute.

    Raises:
        UsageError: no completed trial with that metric.

    Warns:
        UserWarning: fewer than five of them.

    Source:
        Hooker, "Generalized functional ANOVA diagnostics", 2007; Hutter, Hoos and Leyton-Brown, "An efficient approach
        for assessing hyperparameter importance", 2014; the process: Durrande, Ginsbourger, Roustant and Carraro, "ANOVA
        kernels and RKHS of zero mean functions for model-based sensitivity analysis", 2013; shares of pairs: Owen,
        "Sobol' indices and Shapley value", 2014.
    """
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    each = [_of_one(space, trials, name) for name in names]
    main = {n: float(np.mean([found.main[n] for found in each])) for n in space.names}
    pairs = {p: float(np.mean([found.pairs.get(p, 0.0) for found in each])) for found in each for p in found.pairs}
    return Importance(main, pairs)


def _of_one(space: Space, trials: Sequence[Trial], metric: str) -> Importance:
    known = [t for t in trials if metric in t.metrics and all(n in space.parameters for n in t.params)]
    if not known:
        raise UsageError(
            f"no trial says what matters for {metric!r}",
            expected=f"completed trials that hold it, at least {FEWEST} for a fair guess",
            got="none",
        )
    if len(known) < FEWEST:
        message = f"{len(known)} completed trials hold {metric!r}: below {FEWEST} their shares are hardly a guess"
        warnings.warn(message, stacklevel=2)
    params, values = _averaged(known, metric)
    from luthier.study.anova import cover, decompose

    kept = cover(space, params, _MOST)
    chosen = [params[i] for i in kept]
    found = [Importance(*decompose(space, chosen, reading)) for reading in _readings(values[kept])]
    return max(found, key=lambda one: one.explained, default=Importance(dict.fromkeys(space.names, 0.0), {}))


def _readings(values: Array) -> list[Array]:
    """Values as they are, and with those far outside the rest drawn in, of mean 0 and variance 1 each.

    Where a search has converged the results that say most, those away from the best, are far outside the rest; where
    one trial has diverged its result says nothing. Which it is shows in what a model can predict.
    """
    if len(values) < 3:
        return []
    plain, tame = values / max(float(np.abs(values).max()), 1e-300), _tamed(values)
    return [(each - each.mean()) / each.std() for each in (plain, tame) if each.std() > 0]


def _averaged(trials: Sequence[Trial], metric: str) -> tuple[list[Params], Array]:
    """Each combination once, with the mean of its results."""
    params: dict[tuple[tuple[str, str], ...], Params] = {}
    results: dict[tuple[tuple[str, str], ...], list[float]] = {}
    for trial in trials:
        label = tuple((name, repr(trial.params[name])) for name in sorted(trial.params))
        params.setdefault(label, dict(trial.params))
        results.setdefault(label, []).append(trial.metrics[metric])
    return list(params.values()), np.array([_mean(found) for found in results.values()])


def _mean(values: Sequence[float]) -> float:
    largest = max(abs(v) for v in values) or 1.0
    return largest * (sum(v / largest for v in values) / len(values))


def _tamed(values: Array) -> Array:
    """Values in interquartile ranges; those more than two outside the quartiles count as the farthest of the others.

    So one diverged trial, or a tenth of them, is not all that counts, and ordinary results keep their proportions.

    Source:
        the fences of Tukey, "Exploratory data analysis", 1977.
    """
    half = values / 2  # so that differences of the largest numbers are numbers
    first, middle, third = np.quantile(half, [0.25, 0.5, 0.75])
    width = float(third - first) or float(np.abs(half - middle).mean())
    if width == 0:
        return np.zeros_like(half)
    ordinary = half[(half >= first - 2 * width) & (half <= third + 2 * width)]
    return np.asarray((np.clip(half, ordinary.min(), ordinary.max()) - middle) / width)
