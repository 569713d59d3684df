"""Outputs made easier to model: the bad end is cut, skew is taken out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from luthier.pareto import Array

Transform = Callable[[Array], Array]

_POWERS = np.linspace(-2.0, 3.0, 51)


def standardise(values: Array) -> Array:
    """Zero mean and unit spread; zeros where all values are alike. Huge values are no danger."""
    scaled = values / max(float(np.abs(values).max(initial=0.0)), 1e-300)
    spread = scaled.std()
    return np.asarray((scaled - scaled.mean()) / spread if spread > 1e-13 else np.zeros_like(scaled))


def winsorise(losses: Array) -> Array:
    """Pulls what is far worse than the rest to 1.5 times the distance between the best and the 90 % quantile.

    Args:
        losses: standardised, to be minimised, shape (n,).
    """
    ninth = float(np.quantile(losses, 0.9))
    return np.asarray(np.minimum(losses, ninth + 1.5 * (ninth - losses.min())))


def yeo_johnson(values: Array, power: float | Array) -> Array:
    """The Yeo-Johnson transform, for values of any sign; ``power`` broadcasts.

    Source:
        Yeo and Johnson, "A new family of power transformations to improve normality or symmetry", 2000.
    """
    up, down = np.maximum(values, 0.0), np.minimum(values, 0.0)
    p, q = np.asarray(power, dtype=float), 2.0 - np.asarray(power, dtype=float)
    flat_p, flat_q = np.abs(p) < 1e-8, np.abs(q) < 1e-8
    positive = np.where(flat_p, np.log1p(up), np.expm1(p * np.log1p(up)) / np.where(flat_p, 1.0, p))
    negative = np.where(flat_q, -np.log1p(-down), -np.expm1(q * np.log1p(-down)) / np.where(flat_q, 1.0, q))
    return np.asarray(positive + negative)


def best_power(values: Array) -> float:
    """The power under which values look most like a normal sample (profile likelihood on a grid)."""
    warped = yeo_johnson(values[None, :], _POWERS[:, None])
    spread = np.maximum(warped.var(1), 1e-300)
    bend = (np.sign(values) * np.log1p(np.abs(values))).sum()
    likelihood = -0.5 * len(values) * np.log(spread) + (_POWERS - 1.0) * bend
    return float(_POWERS[np.argmax(likelihood)])


def about_median(losses: Array) -> Array:
    """Values as distances from their median, the best 1.5 away; as they are where that is the median itself.

    A power transform bends at 0 and 1. With mean and spread in these places, a bad half of the results would leave all
    good ones at one end, alike.

    Args:
        losses: to be minimised, shape (n,).
    """
    middle = float(np.median(losses))
    reach = middle - float(losses.min())
    return (losses - middle) * (1.5 / reach) if reach > 1e-9 else losses


def outputs(losses: Array) -> Array:
    """Targets for a Gaussian process, order kept except beyond the winsorised end.

    Args:
        losses: to be minimised, finite, shape (n,).

    Returns:
        zero mean, unit spread, shape (n,).
    """
    plain = linear(losses)
    if len(plain) < 6 or not plain.any():
        return plain
    central = about_median(plain)
    return standardise(yeo_johnson(central, best_power(central)))


def linear(losses: Array) -> Array:
    """Targets whose differences stay in proportion, but for the winsorised end: hypervolumes are measured in them.

    Args:
        losses: to be minimised, finite, shape (n,).

    Returns:
        zero mean, unit spread, shape (n,).
    """
    return standardise(winsorise(standardise(losses)))


def about_zero(slacks: Array) -> Array:
    """Targets for a quantity of which only the sign matters: signs kept, far values pulled in.

    Args:
        slacks: finite, shape (n,).
    """
    scale = float(np.median(np.abs(slacks))) or float(np.abs(slacks).max(initial=0.0)) or 1.0
    return np.asarray(np.arcsinh(np.clip(slacks / max(scale, 1e-300), -1e6, 1e6)))
