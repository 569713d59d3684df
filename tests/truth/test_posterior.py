"""What a model believes of noisy trials: against the noise and the function that made them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from luthier import AskTell, Choice, Float, Space
from luthier.search._encode import Encoding
from luthier.search._standing import standing, student
from luthier.search.bayes.posterior import posterior

SPACE = Space(x=Float(0, 1), y=Float(0, 1), c=Choice(["a", "b"]))
ENCODING = Encoding(SPACE)


def _value(p):
    return (p["x"] - 0.3) ** 2 + 2 * (p["y"] - 0.6) ** 2 + (0.3 if p["c"] == "a" else 0.0)


def _measured(noise, seed, trials=60, algorithm="random", scale=1.0):
    loop = AskTell(SPACE, algorithm=algorithm, minimize="loss", seed=seed)
    rng = np.random.default_rng(seed)
    for _ in range(trials):
        trial = loop.ask()
        loop.tell(trial, scale * (_value(trial.params) + noise * rng.normal()))
    return loop


def _posterior(loop):
    rows = np.array([ENCODING.rows(t.params) for t in loop.trials])
    return posterior(ENCODING, rows, np.array([t.metrics["loss"] for t in loop.trials]))


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e12])
def test_the_noise_is_found_and_the_intervals_hold(scale):
    inside, noises = [], []
    for seed in range(6):
        loop = _measured(0.1, seed, scale=scale)
        found = _posterior(loop)
        assert found is not None
        true = scale * np.array([_value(loop.trials[i].params) for i in found.kept])
        inside.append(np.abs(true - found.mean) < 1.96 * found.deviation)
        noises.append(found.noise / scale)
    assert 0.08 < np.mean(noises) < 0.13
    assert 0.85 < np.mean(inside) <= 1.0


@pytest.mark.parametrize("algorithm", ["random", "tpe", "bayes"])
@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_is_noisy_the_best_is_the_best_measurement(algorithm, seed):
    loop = _measured(0.0, seed, 40, algorithm)
    assert _posterior(loop) is None
    assert loop.best.metrics["loss"] == min(t.metrics["loss"] for t in loop.trials)
    assert not loop.best.estimates


def test_few_trials_and_flat_ones_say_nothing():
    assert _posterior(_measured(0.5, 0, 19)) is None
    rows = np.random.default_rng(0).random((30, 3))
    assert posterior(ENCODING, rows, np.zeros(30)) is None
    assert posterior(ENCODING, rows, np.full(30, 7.0)) is None


@pytest.mark.parametrize("seed", [5, 8, 27, 36])
def test_what_may_be_noise_or_may_be_waves_is_no_noise_yet(seed):
    """The likeliest process has noise in it, but one without explains the trials nearly as well."""
    rng = np.random.default_rng(seed)
    drawn = [SPACE.draw(rng) for _ in range(20)]
    waves = np.array([math.sin(15 * p["x"]) + math.cos(11 * p["y"]) for p in drawn])
    assert posterior(ENCODING, np.array([ENCODING.rows(p) for p in drawn]), waves) is None


def test_the_best_is_truly_better_than_the_luckiest():
    named, luckiest = [], []
    for seed in range(12):
        loop = _measured(0.3, seed, 50)
        named.append(_value(loop.best.params))
        luckiest.append(_value(min(loop.trials, key=lambda t: t.metrics["loss"]).params))
    assert np.mean(named) < 0.7 * np.mean(luckiest)


def test_it_is_the_same_each_time_and_upside_down():
    loop = _measured(0.2, 3)
    again = standing(SPACE, loop.objectives, loop.trials).best
    assert again == loop.best
    assert again.estimates == loop.best.estimates
    up = AskTell(SPACE, algorithm="random", maximize="gain", seed=3)
    for trial in loop.trials:
        up.add(dict(trial.params), -trial.metrics["loss"])
    mine, theirs = up.best.estimates["gain"], loop.best.estimates["loss"]
    assert up.best.params == loop.best.params
    assert (mine.mean, mine.low, mine.high) == pytest.approx((-theirs.mean, -theirs.high, -theirs.low))


def test_constraints_come_first():
    loop = AskTell(SPACE, algorithm="random", minimize="loss", constraints={"x": ">= 0.5"}, seed=0)
    rng = np.random.default_rng(0)
    for _ in range(50):
        trial = loop.ask()
        loop.tell(trial, {"loss": _value(trial.params) + 0.1 * rng.normal(), "x": trial.params["x"]})
    assert loop.best.estimates
    assert loop.best.params["x"] >= 0.5


def test_many_trials_are_thinned_and_a_broken_model_falls_back(monkeypatch):
    loop = _measured(0.2, 0, 500)
    found = _posterior(loop)
    assert len(found.kept) == 384
    assert _value(loop.best.params) < 0.05

    def broken(*_):
        raise np.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr("luthier.search.bayes.posterior._noisy_fit", broken)
    best = standing(SPACE, loop.objectives, loop.trials).best
    assert best.metrics["loss"] == min(t.metrics["loss"] for t in loop.trials)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_interval_of_repeats_is_students(count):
    rng = np.random.default_rng(count)
    hits = 0
    for _ in range(1500):
        values = rng.normal(3.0, 2.0, count)
        found = student(values)
        hits += found.low <= 3.0 <= found.high
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    assert (found.low, found.high, found.count) == (pytest.approx(low), pytest.approx(high), count)
    assert abs(hits / 1500 - 0.95) < 0.02


def test_of_two_that_promise_alike_the_better_known_one_is_best():
    loop = _measured(0.3, 4, 50)
    found = [t.estimates["loss"] for t in standing(SPACE, loop.objectives, loop.trials).ranking]
    worst = [e.mean + (e.high - e.low) / 2 / stats.norm.ppf(0.975) for e in found]
    assert worst == pytest.approx(sorted(worst), abs=1e-3)
    assert [e.mean for e in found] != sorted(e.mean for e in found)
