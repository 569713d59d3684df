"""The Gaussian process and its acquisition against formulas written out, finite differences and mpmath."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy import integrate, optimize, stats

from luthier import Choice, Float, Int, Space
from luthier.search._encode import Encoding
from luthier.search.bayes import acquisition, kernel, optimise, warp
from luthier.search.bayes.fit import JITTER, Data, Evidence, Process, fit
from luthier.search.bayes.model import Models, believe

RNG = np.random.default_rng(0)


def sample(n: int = 13) -> Data:
    space = Space(a=Float(0, 1), b=Float(0, 1), c=Choice(["u", "v", "w"]))
    encoding = Encoding(space)
    rows = encoding.features(RNG.random((n, 3)))
    return Data(rows, warp.standardise(RNG.normal(size=n) + rows[:, 0]), encoding.categorical)


DATA = sample()
THETA = np.array([-0.4, 0.3, 0.9, 0.2, -3.0, -0.6])


def covariance(a: np.ndarray, b: np.ndarray, theta: np.ndarray) -> float:
    """Matern-5/2 of all scaled differences, and each one's rational quadratic, written out for one pair."""
    gaps = [(a[0] - b[0]) ** 2, (a[1] - b[1]) ** 2, float(a[2] != b[2])]
    each = [gap / math.exp(2 * length) for gap, length in zip(gaps, theta[:3], strict=True)]
    r2, share = sum(each), 1 / (1 + math.exp(-theta[5]))
    r = math.sqrt(r2)
    joint = (1 + math.sqrt(5) * r + 5 * r2 / 3) * math.exp(-math.sqrt(5) * r)
    alone = sum(1 / (1 + q / 2) for q in each) / 3
    return math.exp(theta[3]) * ((1 - share) * joint + share * alone)


def test_posterior_is_the_textbook_formula():
    x, y = DATA.rows, DATA.targets
    noise = (math.exp(THETA[4]) + JITTER) * np.eye(len(y))
    gram = np.array([[covariance(a, b, THETA) for b in x] for a in x]) + noise
    new = sample(5).rows
    cross = np.array([[covariance(a, b, THETA) for b in x] for a in new])
    mean, variance = Process(DATA, THETA).predict(new)
    np.testing.assert_allclose(mean, cross @ np.linalg.solve(gram, y), rtol=1e-9)
    wanted = math.exp(THETA[3]) - np.einsum("ij,ji->i", cross, np.linalg.solve(gram, cross.T))
    np.testing.assert_allclose(variance, wanted, rtol=1e-8)


def test_evidence_is_minus_the_log_posterior():
    x, y = DATA.rows, DATA.targets
    noise = (math.exp(THETA[4]) + JITTER) * np.eye(len(y))
    gram = np.array([[covariance(a, b, THETA) for b in x] for a in x]) + noise
    evidence = Evidence(DATA)

    def posterior(theta: np.ndarray, gram: np.ndarray) -> float:
        prior = stats.norm.logpdf(theta[:3], 0, math.sqrt(0.5)).sum()
        prior += stats.norm.logpdf(theta[3], 0, 1) + stats.norm.logpdf(theta[4], -6, 2)
        prior += stats.norm.logpdf(theta[5], 0, 1.5)
        return prior + stats.multivariate_normal.logpdf(y, np.zeros(len(y)), gram)

    other = THETA.copy()
    other[4] = -1.0
    shifted = gram + (math.exp(-1.0) - math.exp(THETA[4])) * np.eye(len(y))
    wanted = posterior(other, shifted) - posterior(THETA, gram)
    assert evidence(THETA)[0] - evidence(other)[0] == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_gradient_of_the_evidence(seed):
    evidence = Evidence(DATA)
    theta = THETA + np.random.default_rng(seed).normal(size=6) * 0.7
    slope = optimize.approx_fprime(theta, lambda t: evidence(t)[0], 1e-6)
    np.testing.assert_allclose(evidence(theta)[1], slope, rtol=2e-4, atol=2e-5)


def test_fit_is_as_good_as_scipys():
    noisy = sample(25)
    x = noisy.rows
    smooth = warp.standardise(np.sin(4 * x[:, 0]) + x[:, 1] ** 2 + (x[:, 2] > 0.5))
    evidence = Evidence(Data(x, smooth, noisy.categorical))
    low, high = evidence.bounds()
    bounds = list(zip(low, high, strict=True))
    theirs = optimize.minimize(evidence, evidence.start(), jac=True, method="L-BFGS-B", bounds=bounds)
    assert evidence(fit(evidence.data))[0] <= theirs.fun + 0.02


def test_matern_slope():
    squares = np.linspace(0.01, 30, 50)
    step = 1e-6
    slope = (kernel.matern(squares - step)[0] - kernel.matern(squares + step)[0]) / (2 * step)
    np.testing.assert_allclose(kernel.matern(squares)[1], slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("z", [-1e6, -1e4, -500.0, -40.0, -7.0, -1.001, -0.999, 0.0, 2.0, 9.0, 1e3])
def test_log_expected_improvement_against_mpmath(z):
    with mpmath.workdps(60):
        exact = mpmath.log(mpmath.npdf(z) + z * mpmath.ncdf(z)) if z > -1000 else None
        if exact is None:  # the asymptotic series: h(z) = phi(z) (z^-2 - 3 z^-4 + 15 z^-6 ...)
            t = mpmath.mpf(z) ** -2
            exact = -(mpmath.mpf(z) ** 2) / 2 - mpmath.log(2 * mpmath.pi) / 2 + mpmath.log(t - 3 * t**2 + 15 * t**3)
    assert acquisition.log_h(np.array([z]))[0] == pytest.approx(float(exact), rel=1e-7)


@pytest.mark.parametrize(("mean", "deviation", "best"), [(0.3, 0.5, 0.1), (-1.0, 0.2, 0.4), (2.0, 1.5, -0.5)])
def test_expected_improvement_by_quadrature(mean, deviation, best):
    def density(y: float) -> float:
        return (best - y) * stats.norm.pdf(y, mean, deviation)

    wanted = integrate.quad(density, mean - 12 * deviation, best)[0]
    found = acquisition.log_ei(np.array([mean]), np.array([deviation]), np.array([best]))[0]
    assert math.exp(found[0]) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("z", [-30.0, -3.0, -0.5, 1.0, 4.0])
def test_slopes_of_log_expected_improvement(z):
    def value(both: np.ndarray) -> float:
        return float(acquisition.log_ei(both[:1], both[1:], np.array([0.0]))[0][0])

    at = np.array([-z * 0.7, 0.7])
    _, by_mean, by_deviation = acquisition.log_ei(at[:1], at[1:], np.array([0.0]))
    slope = optimize.approx_fprime(at, value, 1e-7)
    np.testing.assert_allclose([by_mean[0], by_deviation[0]], slope, rtol=1e-4)


@pytest.mark.parametrize("pending", [0, 3])
def test_gradient_of_the_acquisition(pending):
    process = Process(DATA, THETA)
    if pending:
        process = believe(process, sample(pending).rows)
    best = float(process.predict(process.data.rows)[0].min())
    improvement = acquisition.Improvement(process, best)
    for row in sample(6).rows:
        slope = optimize.approx_fprime(row, lambda x: float(improvement(x[None])[0]), 1e-7)
        value, found = improvement.with_gradient(row[None])
        assert value[0] == pytest.approx(improvement(row[None])[0])
        np.testing.assert_allclose(found[0, :2], slope[:2], rtol=1e-3, atol=1e-5)


def test_yeo_johnson_is_scipys():
    values = RNG.normal(size=40) ** 3
    for power in (-1.0, 0.0, 0.7, 2.0, 2.5):
        np.testing.assert_allclose(warp.yeo_johnson(values, power), stats.yeojohnson(values, power), rtol=1e-10)
    assert warp.best_power(values) == pytest.approx(stats.yeojohnson(values)[1], abs=0.06)


def test_outputs_keep_the_order():
    losses = np.exp(RNG.normal(size=50) * 3)
    order = np.argsort(losses)
    assert (np.diff(warp.outputs(losses)[order]) >= 0).all()
    assert abs(warp.outputs(losses)).max() < 10


def test_good_results_stay_apart_whatever_the_bad_ones_are():
    good = np.linspace(0.50, 0.53, 12)
    bad = np.array([0.9, 1.0, 1.0, 1.1, 1.5, 2.0, 5.0, 5.0])
    warped = warp.outputs(np.concatenate([good, bad]))
    assert (np.diff(warped[:12]) > 0).all()
    assert warped[11] - warped[0] > 0.3 * (warped.max() - warped.min())
    assert warp.about_median(np.array([3.0, 1.0, 2.0])) == pytest.approx([1.5, -1.5, 0.0])
    assert (warp.about_median(np.array([1.0, 1.0, 1.0, 5.0])) == [1.0, 1.0, 1.0, 5.0]).all()


def test_exact_results_have_little_noise():
    rng = np.random.default_rng(5)
    rows = rng.random((20, 1))
    data = Data(rows, warp.standardise(rng.normal(size=20)), np.array([False]))
    assert fit(data, noise=1e-3)[2] <= math.log(1e-3) < fit(data)[2]


@pytest.mark.parametrize(("parameter", "bent"), [(Float(0, 1), False), (Choice(list("abcdefghijklmn")), True)])
def test_results_of_numbers_are_bent_only_where_they_are_taken_as_exact(parameter, bent):
    losses = np.exp(np.linspace(0.0, 2.0, 14))  # nothing far out, nothing cut
    models = Models(Encoding(Space(x=parameter)))
    rows = (np.arange(14)[:, None] + 0.5) / 14
    calm, exact = (models.objective(rows, losses, exact).data.targets for exact in (False, True))
    assert abs(stats.skew(exact)) < 0.5 * abs(stats.skew(losses))
    if bent:
        np.testing.assert_array_equal(calm, exact)
    else:
        assert np.corrcoef(calm, losses)[0, 1] == pytest.approx(1.0, abs=1e-12)


def test_minimiser_finds_rosenbrocks_valley_within_bounds():
    def batch(points, rows):
        return np.array([optimize.rosen(p) for p in points]), np.array([optimize.rosen_der(p) for p in points])

    starts = RNG.uniform(0, 1, (5, 4))
    found = optimise.minimise(batch, starts, np.full(4, -1.0), np.full(4, 2.0), 300, tolerance=1e-14)
    np.testing.assert_allclose(found, 1.0, atol=1e-3)
    held = optimise.minimise(batch, np.clip(starts, -1, 0.5), np.full(4, -1.0), np.full(4, 0.5), 300, tolerance=1e-14)
    bounds = [(-1, 0.5)] * 4
    theirs = optimize.minimize(optimize.rosen, np.zeros(4), jac=optimize.rosen_der, bounds=bounds, method="L-BFGS-B")
    assert min(optimize.rosen(p) for p in held) == pytest.approx(theirs.fun, rel=1e-3)
    assert held.max() <= 0.5


def test_encoding_agrees_with_the_space():
    space = Space(
        a=Choice(["u", "v"]),
        b=Int(1, 40, log=True).when(a="u"),
        c=Float(1e-3, 1, log=True),
        d=Choice([1, 2, 3]).when(b=7),
    )
    encoding = Encoding(space)
    for row in RNG.random((300, 4)):
        params = space.from_unit(row)
        snapped, active = encoding.snap(row[None])
        assert {n for n, on in zip(space.names, active[0], strict=True) if on} == set(params)
        assert space.from_unit(snapped[0]).keys() == params.keys()
        np.testing.assert_allclose(encoding.snap(encoding.rows(params)[None])[0], snapped, atol=1e-12)
        assert all(space.from_unit(snapped[0])[n] == pytest.approx(v) for n, v in params.items() if n != "a")
