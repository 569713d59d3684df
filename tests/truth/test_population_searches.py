"""TPE, CMA-ES and NSGA-II: densities by integration, update equations written out, behaviour on known functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate

from luthier import AskTell, Choice, Float, Int, Space, pareto
from luthier.search import cmaes, nsga2, tpe
from luthier.search._encode import Encoding


def parzen(count: int = 7) -> tuple[Encoding, tpe.Parzen]:
    space = Space(x=Float(0, 1), n=Int(1, 4), c=Choice(["u", "v", "w"]), y=Float(0, 1).when(c="u"))
    encoding = Encoding(space)
    return encoding, tpe.parzen(encoding, np.random.default_rng(0).random((count, 4)))


@pytest.mark.parametrize("column", [0, 3])
def test_parzen_densities_of_numbers_integrate_to_one(column):
    _, density = parzen()

    def at(x: float) -> float:
        row = np.array([[0.5, 0.5, 0.1, 0.5]])
        row[0, column] = x
        return float(np.exp(density.log_density(row)[0, column]))

    assert integrate.quad(at, 0, 1, epsabs=1e-6, limit=200)[0] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("column", "values"), [(1, 4), (2, 3)])
def test_parzen_densities_of_listed_values_sum_to_one(column, values):
    _, density = parzen()
    rows = np.full((values, 4), 0.5)
    rows[:, column] = (np.arange(values) + 0.5) / values
    assert np.exp(density.log_density(rows)[:, column]).mean() == pytest.approx(1.0, abs=1e-9)


def test_parzen_draws_follow_the_densities():
    _, density = parzen()
    drawn = density.draw(20_000, np.random.default_rng(1))
    grid = (np.arange(400) + 0.5) / 400
    for column in (0, 2):
        rows = np.full((400, 4), 0.5)
        rows[:, column] = grid
        wanted = np.exp(density.log_density(rows)[:, column])
        for third in (0, 1, 2):
            inside = (drawn[:, column] * 3).astype(int) == third
            assert inside.mean() == pytest.approx(wanted[(grid * 3).astype(int) == third].sum() / 400, abs=0.015)


def test_cma_constants_are_the_tutorials():
    c = cmaes.Strategy.of(10)
    assert c.lam == 10
    assert len(c.weights) == 5
    raw = np.log(5.5) - np.log(np.arange(1, 6))
    np.testing.assert_allclose(c.weights, raw / raw.sum())
    assert c.mu_eff == pytest.approx(3.167, abs=0.01)
    assert c.c_sigma == pytest.approx((c.mu_eff + 2) / (10 + c.mu_eff + 5))
    assert c.chi == pytest.approx(math.sqrt(2) * math.gamma(5.5) / math.gamma(5), rel=1e-3)


def test_one_cma_update_written_out():
    c = cmaes.Strategy.of(2, 6)
    s = cmaes.State.start(np.array([0.5, 0.5]), 0.2)
    x = np.array([[0.6, 0.5], [0.7, 0.6], [0.4, 0.9], [0.1, 0.1], [0.9, 0.9], [0.2, 0.3]])
    y = (x[:3] - 0.5) / 0.2
    y_w = c.weights @ y
    p_sigma = math.sqrt(c.c_sigma * (2 - c.c_sigma) * c.mu_eff) * y_w
    p_c = math.sqrt(c.c_c * (2 - c.c_c) * c.mu_eff) * y_w
    rank_mu = sum(w * np.outer(v, v) for w, v in zip(c.weights, y, strict=True))
    after = cmaes.update(s, x, c)
    np.testing.assert_allclose(after.m, c.weights @ x[:3])
    np.testing.assert_allclose(after.p_sigma, p_sigma)
    wanted = (1 - c.c_1 - c.c_mu) * np.eye(2) + c.c_1 * np.outer(p_c, p_c) + c.c_mu * rank_mu
    np.testing.assert_allclose(after.C, wanted)
    step = math.exp(c.c_sigma / c.d_sigma * (np.linalg.norm(p_sigma) / c.chi - 1))
    assert after.sigma == pytest.approx(0.2 * step)


def test_cma_converges_linearly_on_an_ellipsoid():
    rng = np.random.default_rng(3)
    c = cmaes.Strategy.of(6)
    s = cmaes.State.start(np.full(6, 0.8), 0.3)
    scale = 10 ** np.linspace(0, 2, 6)
    for _ in range(250):
        root, _ = s.roots()
        x = s.m + s.sigma * rng.normal(size=(c.lam, 6)) @ root
        s = cmaes.update(s, x[np.argsort((scale * x * x).sum(1))], c)
    assert (scale * s.m**2).sum() < 1e-12


def run(algorithm: str, space: Space, function, trials: int, seed: int) -> float:
    loop = AskTell(space, algorithm=algorithm, minimize="loss", seed=seed)
    for _ in range(trials):
        trial = loop.ask()
        loop.tell(trial, function(trial.params))
    return loop.best.metrics["loss"]


def bowl(p: dict) -> float:
    return (p["x"] - 0.7) ** 2 + (p["y"] + 1.3) ** 2 + 0.1 * abs(p["n"] - 7) + (0.0 if p["c"] == "b" else 0.5)


BOWL = Space(x=Float(-3, 3), y=Float(-3, 3), n=Int(0, 12), c=Choice(["a", "b", "c"]))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["tpe", "cmaes", "bayes", "auto"])
def test_learning_beats_drawing(algorithm):
    drawn = np.median([run("random", BOWL, bowl, 60, seed) for seed in range(5)])
    learned = np.median([run(algorithm, BOWL, bowl, 60, seed) for seed in range(3)])
    assert learned < 0.8 * drawn


def front_volume(algorithm: str, seed: int) -> float:
    loop = AskTell(
        Space({f"x{i}": Float(0, 1) for i in range(4)}),
        algorithm=algorithm,
        objectives={"f": "min", "g": "min"},
        seed=seed,
    )
    for _ in range(150):
        trial = loop.ask()
        x = [trial.params[f"x{i}"] for i in range(4)]
        rest = 1 + 3 * sum(x[1:])
        loop.tell(trial, {"f": x[0], "g": rest * (1 - math.sqrt(x[0] / rest))})
    losses = np.array([[t.metrics["f"], t.metrics["g"]] for t in loop.front])
    return pareto.hypervolume(losses, np.array([1.1, 6.0]))


def test_nsga2_covers_more_than_random_draws():
    assert np.median([front_volume("nsga2", s) for s in range(3)]) > np.median(
        [front_volume("random", s) for s in range(3)]
    )


def test_crossover_keeps_the_mean_and_mutation_stays_inside():
    rng = np.random.default_rng(0)
    a, b = np.full((40_000, 1), 0.4), np.full((40_000, 1), 0.6)
    child = nsga2.simulated_binary(a, b, 15.0, rng)
    assert child.mean() == pytest.approx(0.5, abs=0.002)
    moved = nsga2.polynomial(rng.random((1000, 3)), 15.0, rng)
    assert moved.min() >= 0
    assert moved.max() < 1
