"""Acquisitions for several objectives, constraints and failures: Monte Carlo, finite differences, behaviour."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from luthier import AskTell, Choice, Float, Space, pareto
from luthier.search.bayes.acquisition import Feasible, Hypervolume, Improvement
from luthier.search.bayes.fit import Data, Process
from luthier.search.bayes.model import believe

THETA = np.array([-0.7, -0.2, 0.1, -5.0, 0.3])


def process(seed: int) -> Process:
    rng = np.random.default_rng(seed)
    return Process(Data(rng.random((9, 2)), rng.normal(size=9), np.zeros(2, dtype=bool)), THETA)


FIRST, SECOND = process(1), process(2)
FRONT = np.array([[-1.0, 0.8], [-0.2, 0.1], [0.5, -0.9]])
REFERENCE = np.array([1.2, 1.1])


@pytest.mark.parametrize("front", [FRONT, FRONT[:1], np.empty((0, 2)), FRONT + 0.7])
def test_expected_gain_in_hypervolume_by_monte_carlo(front):
    rng = np.random.default_rng(0)
    wanted = Hypervolume((FIRST, SECOND), front, REFERENCE)
    rows = rng.random((4, 2))
    inside = front[(front < REFERENCE).all(1)] if len(front) else front
    before = pareto.hypervolume(inside, REFERENCE) if len(inside) else 0.0
    for row, value in zip(rows, wanted(rows), strict=True):
        (m1, v1), (m2, v2) = FIRST.predict(row[None]), SECOND.predict(row[None])
        normal = rng.normal(size=(3_000, 2))
        drawn = np.array([m1[0], m2[0]]) + normal * np.sqrt([v1[0], v2[0]])
        gains = [pareto.hypervolume(np.vstack([inside, y]), REFERENCE) - before for y in drawn]
        assert math.exp(value) == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / len(gains) ** 0.5 + 1e-4)


@pytest.mark.parametrize("front", [FRONT, np.empty((0, 2))])
def test_gradient_of_the_gain_in_hypervolume(front):
    wanted = Hypervolume((FIRST, SECOND), front, REFERENCE)
    for row in np.random.default_rng(1).random((5, 2)):
        slope = optimize.approx_fprime(row, lambda x: float(wanted(x[None])[0]), 1e-7)
        value, found = wanted.with_gradient(row[None])
        assert value[0] == pytest.approx(wanted(row[None])[0])
        np.testing.assert_allclose(found[0], slope, rtol=1e-3, atol=1e-4)


def test_gain_in_hypervolume_far_from_hope_stays_finite():
    wanted = Hypervolume((FIRST, SECOND), FRONT - 500.0, REFERENCE)
    value, slope = wanted.with_gradient(np.random.default_rng(2).random((6, 2)))
    assert np.isfinite(value).all()
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("alone", [True, False])
def test_feasibility_multiplies_the_improvement_and_has_its_gradient(alone):
    improvement = None if alone else Improvement(FIRST, -0.3)
    wanted = Feasible(improvement, [(SECOND, 0.0), (process(3), 0.4)])
    for row in np.random.default_rng(3).random((4, 2)):
        slope = optimize.approx_fprime(row, lambda x: float(wanted(x[None])[0]), 1e-7)
        np.testing.assert_allclose(wanted.with_gradient(row[None])[1][0], slope, rtol=1e-3, atol=1e-4)
        mean, variance = SECOND.predict(row[None])
        other, spread = process(3).predict(row[None])
        chance = stats.norm.cdf(-mean[0] / math.sqrt(variance[0] + SECOND.noise))
        chance *= stats.norm.cdf((0.4 - other[0]) / math.sqrt(spread[0] + SECOND.noise))
        base = 0.0 if improvement is None else improvement(row[None])[0]
        assert wanted(row[None])[0] == pytest.approx(base + math.log(chance))


def test_believing_a_pending_point_leaves_the_mean():
    rows = np.random.default_rng(4).random((3, 2))
    before, spread = FIRST.predict(rows)
    after, less = believe(FIRST, rows).predict(rows)
    np.testing.assert_allclose(after, before, atol=0.02)
    assert (less < spread).all()


def trials_to_reach(level: float, crash: bool, seed: int, most: int = 40) -> int:
    space = Space(x=Float(0, 1), y=Float(0, 1), c=Choice(["a", "b"]))
    loop = AskTell(space, algorithm="bayes", minimize="loss", seed=seed)
    for number in range(most):
        trial = loop.ask()
        p = trial.params
        if crash and p["x"] > 0.7:
            loop.tell(trial, failed="diverged")
            continue
        value = (p["x"] - 0.55) ** 2 + (p["y"] - 0.2) ** 2 + (0.2 if p["c"] == "a" else 0.0)
        loop.tell(trial, value)
        if value < level:
            return number + 1
    return most


@pytest.mark.slow
def test_a_region_that_crashes_costs_few_trials():
    whole = np.mean([trials_to_reach(0.002, False, seed) for seed in range(4)])
    crashing = np.mean([trials_to_reach(0.002, True, seed) for seed in range(4)])
    assert crashing <= whole + 8


@pytest.mark.slow
def test_constraints_steer_the_search():
    space = Space(x=Float(0, 1), y=Float(0, 1))
    loop = AskTell(space, algorithm="bayes", minimize="loss", constraints={"sum": ">= 1.0"}, seed=1)
    for _ in range(30):
        trial = loop.ask()
        p = trial.params
        loop.tell(trial, {"loss": p["x"] + 2 * p["y"], "sum": p["x"] + p["y"]})
    assert loop.objectives.violation(loop.best.metrics) == 0
    assert loop.best.metrics["loss"] < 1.05


@pytest.mark.slow
def test_two_objectives_reach_more_volume_than_random_draws():
    def volume(algorithm: str) -> float:
        loop = AskTell(Space(x=Float(0, 1), y=Float(0, 1)), algorithm=algorithm, objectives={"f": "min", "g": "min"})
        for _ in range(30):
            trial = loop.ask()
            x, y = trial.params["x"], trial.params["y"]
            loop.tell(trial, {"f": x + 0.5 * y, "g": (1 - x**0.5) + y})
        return pareto.hypervolume(
            np.array([[t.metrics["f"], t.metrics["g"]] for t in loop.front]), np.array([1.6, 2.1])
        )

    assert volume("bayes") > volume("random") + 0.02
