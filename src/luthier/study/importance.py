"""Which parameters matter: shares of variance, from the trials that are there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from luthier.errors import UsageError
from luthier.pareto import Array
from luthier.space import Space
from luthier.trial import Trial

_NEIGHBOURS = 5
FEWEST = 5


def importance(space: Space, trials: Sequence[Trial], metric: str) -> dict[str, float]:
    """Share of a metric's variance that each parameter explains.

    A smooth model of the metric (ridge regression on cosines of each parameter and of each pair, its
    strength chosen by leave-one-out error) is fitted to the metric, outliers tamed; a parameter's share is the
    growth of the model's squared error when its column is shuffled, normalised to sum to the part of the
    variance that the model explains out of sample. So the shares sum to less than 1: the rest is noise,
    or more than this model can see. With few trials they are rough.

    Args:
        space: where was searched.
        trials: completed trials, at least five; with fewer than some thirty the shares are rough.
        metric: the metric's name.

    Returns:
        parameter to share in [0, 1], the largest first.

    Raises:
        UsageError: fewer than five completed trials with that metric.

    Source:
        permutation importance: Breiman, "Random forests", 2001, section 10; leave-one-out of ridge
        regression in closed form: Allen, "The relationship between variable selection and data
        augmentation", 1974 (PRESS).
    """
    known = [t for t in trials if metric in t.metrics]
    if len(known) < FEWEST:
        raise UsageError(
            f"too few trials to say what matters for {metric!r}",
            expected=f"at least {FEWEST} completed trials that hold it",
            got=f"{len(known)}",
        )
    units = np.array([space.to_unit(t.params) for t in known])  # (n, d), NaN where inactive
    values = _tamed(np.array([t.metrics[metric] for t in known]))  # (n,)
    if values.std() == 0:
        return dict.fromkeys(space.names, 0.0)
    share = _shares(space, units, values)
    return dict(sorted(zip(space.names, share.tolist(), strict=True), key=lambda pair: -pair[1]))


def _shares(space: Space, units: Array, values: Array) -> Array:
    strength, explained = _best_strength(_features(space, units), values)
    weights = _fit(_features(space, units), values, strength)
    rng = np.random.default_rng(0)
    base = _error(space, units, values, weights)
    growth = np.zeros(len(space))
    for j in range(len(space)):
        for _ in range(_NEIGHBOURS):
            shuffled = units.copy()
            shuffled[:, j] = rng.permutation(shuffled[:, j])
            growth[j] += max(_error(space, shuffled, values, weights) - base, 0.0)
    total = growth.sum()
    return growth / total * explained if total > 0 else growth


def _features(space: Space, units: Array) -> Array:
    """Shape (n, p): a constant, three cosines per number or one column per option, activity, and products of pairs."""
    n = len(units)
    main: list[Array] = []
    for j, name in enumerate(space.names):
        column, active = units[:, j], ~np.isnan(units[:, j])
        x = np.where(active, column, 0.5)
        size = space[name].size
        if type(space[name]).__name__ == "Choice":
            block = np.stack([(np.minimum((x * size).astype(int), size - 1) == k) for k in range(int(size))], 1) * 1.0
        else:
            block = np.stack([np.cos(np.pi * k * x) for k in (1, 2, 3)], 1)
        block = block * active[:, None]
        main.append(block if active.all() else np.column_stack([block, active * 1.0]))
    pairs = [(main[a][:, :2, None] * main[b][:, None, :2]).reshape(n, -1) for a in range(len(main)) for b in range(a)]
    return np.column_stack([np.ones(n), *main, *pairs])


def _fit(features: Array, values: Array, strength: float) -> Array:
    """Ridge weights, in the dual form: as many unknowns as trials."""
    gram = features @ features.T + strength * np.eye(len(values))
    return np.asarray(features.T @ np.linalg.solve(gram, values))


def _best_strength(features: Array, values: Array) -> tuple[float, float]:
    """The ridge strength of least leave-one-out error, and the share of variance explained with it."""
    gram = features @ features.T
    best = (1.0, 0.0)
    for strength in np.logspace(-2, 3, 11):
        hat = gram @ np.linalg.inv(gram + strength * np.eye(len(values)))
        left_out = (values - hat @ values) / (1.0 - np.diag(hat))
        explained = 1.0 - float((left_out**2).mean() / values.var())
        if explained > best[1]:
            best = (float(strength), explained)
    return best


def _error(space: Space, units: Array, values: Array, weights: Array) -> float:
    return float(((values - _features(space, units) @ weights) ** 2).mean())


def _tamed(values: Array) -> Array:
    """Values with their extreme twentieth on either side drawn in, then asinh((v - median) / spread).

    So neither one diverged trial nor a tenth of them is all that counts. Ranks would not do: a search spends most
    trials near its optimum, where ranks tell apart what hardly differs.
    """
    ordered = np.sort(values)
    beyond = int(np.ceil(0.05 * len(values)))
    inner = np.clip(values, ordered[beyond], ordered[-1 - beyond])
    low, middle, high = np.quantile(inner, [0.1, 0.5, 0.9])
    spread = high - low or inner.std() or 1.0
    return np.asarray(np.arcsinh((inner - middle) / spread))
