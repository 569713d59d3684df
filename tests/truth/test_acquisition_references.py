"""Acquisitions and their slopes against 60-digit arithmetic and against integration that knows no closed form."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy import optimize

from luthier.search.bayes.acquisition import Hypervolume, Improvement, log_ei, log_h
from luthier.search.bayes.fit import Data, Process

mpmath.mp.dps = 60
FRONTS = [
    np.array([[-1.0, 0.8], [-0.2, 0.1], [0.5, -0.9]]),
    np.array([[0.3, 0.2]]),
    np.empty((0, 2)),
    np.array([[0.1, 0.5], [0.1 + 1e-9, 0.5 - 1e-9], [0.2, 0.4]]),
]
REFERENCE = np.array([1.2, 1.1])
PLACES = [
    (0.0, 1.0, 0.0, 1.0),
    (0.4, 0.1, -0.3, 0.05),
    (5.0, 0.3, 4.0, 0.2),
    (-3.0, 0.5, -2.0, 0.01),
    (9.0, 0.2, 0.0, 3.0),
]


def _h(z):
    """phi(z) + z Phi(z)."""
    z = mpmath.mpf(z)
    return mpmath.npdf(z) + z * mpmath.ncdf(z)


def _ei(mean, deviation, best):
    return deviation * _h((best - mean) / deviation)


def _gain(front, m1, s1, m2, s2):
    """Expected gain in hypervolume, strip by strip, in any precision."""
    inside = sorted(map(tuple, front[(front < REFERENCE).all(1)].tolist()))
    lefts = [None, *(p[0] for p in inside)]
    rights = [*(p[0] for p in inside), float(REFERENCE[0])]
    heights = [float(REFERENCE[1]), *(p[1] for p in inside)]
    total = mpmath.mpf(0)
    for left, right, height in zip(lefts, rights, heights, strict=True):
        width = _ei(m1, s1, mpmath.mpf(right)) - (0 if left is None else _ei(m1, s1, mpmath.mpf(left)))
        total += width * _ei(m2, s2, mpmath.mpf(height))
    return total


def _found(front, m1, s1, m2, s2):
    """Log gain and its four slopes, as the acquisition has them for given moments."""
    wanted = Hypervolume((None, None), front, REFERENCE)
    column = [np.array([[float(v)]]) for v in (m1, s1, m2, s2)]
    value, slopes = wanted._strips(*column)
    return float(value[0]), [float(s[0]) for s in slopes]


@pytest.mark.parametrize("z", [-1e5, -3e4, -9e3, -1e3, -40.0, -5.0, -1.0, -1.0 + 1e-12, 0.0, 2.0, 40.0])
def test_log_h_and_its_slope(z):
    exact = mpmath.log(_h(z))
    assert float(log_h(np.array([z]))[0]) == pytest.approx(float(exact), rel=1e-9, abs=1e-9)
    value, by_mean, by_deviation = log_ei(np.array([0.0]), np.array([0.5]), np.array([0.5 * z]))
    half = mpmath.mpf(1) / 2
    best = half * mpmath.mpf(z)
    assert float(value[0]) == pytest.approx(float(mpmath.log(_ei(0, half, best))), rel=1e-9, abs=1e-9)
    mean_slope = -mpmath.ncdf(z) / (half * _h(z))
    deviation_slope = mpmath.npdf(z) / (half * _h(z))
    assert float(by_mean[0]) == pytest.approx(float(mean_slope), rel=1e-6)
    assert float(by_deviation[0]) == pytest.approx(float(deviation_slope), rel=1e-5, abs=1e-200)


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("place", PLACES)
def test_gain_in_hypervolume_and_its_slopes_in_60_digits(front, place):
    value, slopes = _found(front, *place)
    exact = _gain(front, *map(mpmath.mpf, place))
    assert value == pytest.approx(float(mpmath.log(exact)), rel=1e-7, abs=1e-7)
    for i, slope in enumerate(slopes):

        def moved(x, i=i):
            return mpmath.log(_gain(front, *(x if j == i else mpmath.mpf(v) for j, v in enumerate(place))))

        assert slope == pytest.approx(float(mpmath.diff(moved, mpmath.mpf(place[i]))), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("front", FRONTS[:3])
@pytest.mark.parametrize("place", PLACES[:2])
def test_gain_in_hypervolume_by_integration(front, place):
    """The gain of y is the area of what it dominates and nothing else does: the integral of P(y < u) over such u."""
    m1, s1, m2, s2 = place
    edges = 3000
    low = np.array([m1 - 9 * s1, m2 - 9 * s2])
    low = np.minimum(low, REFERENCE - 1e-6)
    axes = [np.linspace(low[j], REFERENCE[j], edges + 1) for j in range(2)]
    middle = [0.5 * (a[1:] + a[:-1]) for a in axes]
    free = np.ones((edges, edges), dtype=bool)
    for point in front:
        free &= ~((middle[0][:, None] >= point[0]) & (middle[1][None, :] >= point[1]))
    below = [
        np.array([0.5 * math.erfc(-(u - m) / (s * math.sqrt(2))) for u in axis])
        for axis, m, s in zip(middle, (m1, m2), (s1, s2), strict=True)
    ]
    cell = np.prod([a[1] - a[0] for a in axes])
    expected = float(below[0] @ (free @ below[1])) * cell
    assert math.exp(_found(front, *place)[0]) == pytest.approx(expected, rel=5e-3)


def _process(seed):
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=9)
    return Process(Data(rng.random((9, 2)), targets, np.zeros(2, dtype=bool)), np.array([-0.7, -0.2, 0.1, -5.0, 0.3]))


@pytest.mark.parametrize("best", [-0.5, -60.0])
def test_gradient_of_the_improvement_near_and_far(best):
    wanted = Improvement(_process(0), best)
    for row in np.random.default_rng(5).random((5, 2)):
        slope = optimize.approx_fprime(row, lambda x: float(wanted(x[None])[0]), 1e-7)
        value, found = wanted.with_gradient(row[None])
        assert value[0] == pytest.approx(wanted(row[None])[0])
        np.testing.assert_allclose(found[0], slope, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("shift", [0.0, -8.0])
def test_gradient_of_the_gain_in_hypervolume_near_and_far(shift):
    front = FRONTS[0] + shift
    wanted = Hypervolume((_process(1), _process(2)), front, REFERENCE + shift)
    for row in np.random.default_rng(6).random((5, 2)):
        slope = optimize.approx_fprime(row, lambda x: float(wanted(x[None])[0]), 1e-7)
        np.testing.assert_allclose(wanted.with_gradient(row[None])[1][0], slope, rtol=2e-3, atol=1e-3)
